"""Go's text/template, as far as the templates of Ollama's Modelfiles use it: read, and evaluated within bounds.

lexer: text and actions. nodes and parser: the tree. values: Go's values, and how they are printed and compared.
functions: what may be called. evaluate: the tree over data. What is not known here is a GoError that names it.
"""

from core.export.proof.gotemplate.evaluate import execute
from core.export.proof.gotemplate.parser import GoTemplate, parse
from core.export.proof.gotemplate.values import GoError

__all__ = ["GoError", "GoTemplate", "execute", "parse"]
