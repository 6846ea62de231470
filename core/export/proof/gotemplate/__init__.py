"""Go's text/template, as far as Nibble's own Modelfiles use it: read, and evaluated within bounds.

lexer: text and actions. parser: the tree. functions: what may be called. evaluate: the tree over data. What Nibble
writes into no Modelfile is not known here, and is a GoError that names it.
"""

from core.export.proof.gotemplate.evaluate import execute
from core.export.proof.gotemplate.lexer import GoError
from core.export.proof.gotemplate.parser import GoTemplate, parse

__all__ = ["GoError", "GoTemplate", "execute", "parse"]
