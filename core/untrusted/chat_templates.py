"""Chat templates of strangers: in Jinja's sandbox, as transformers runs them, with bounds on their work and output.

The sandbox keeps a template from Python's insides, but not from looping for ever or from making a text of gigabytes.
Here every turn of a loop and every call counts as a step, whatever is made counts by its size, and what can outgrow
its operands (a product, a replacement, a padding) is measured before it is made. What a rendering may spend grows with
what it is given, so that a long conversation is no reason to stop. Covered: whatever goes through transformers'
`apply_chat_template` and `render_jinja_template` once `bound_templates()` was called; the GGUF's copy of a template,
which llama.cpp renders in the export's own process, is one that was rendered here before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from jinja2 import Template, TemplateError, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from core.untrusted.template_limits import TemplateLimits, TooMuch, foresee, foresee_power, foresee_product

# The largest template of a known model has some 20,000 characters.
MOST_SOURCE = 500_000
_EACH = "each of a loop"
# Those that chat templates use.
_FILTERS = """
    abs attr capitalize count d default dictsort e escape first float format indent int items join last length list
    lower map max min reject rejectattr replace reverse safe select selectattr sort string title tojson trim unique
    upper
""".split()  # noqa: SIM905 (a list of them takes a screen)
# What a template can end in beside its own refusal.
_PYTHON_ERRORS = (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, SyntaxError)
TEMPLATE_ERRORS = (TemplateError, *_PYTHON_ERRORS)


class _Code(CodeGenerator):
    """Jinja's compiler; what a template makes passes the budget."""

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:
        self._passing(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:
        self._passing(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:
        if node.ctx == "load":
            self._passing(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:
        if isinstance(node.arg, nodes.Slice):
            self._passing(super().visit_Getitem, node, frame)
        else:
            super().visit_Getitem(node, frame)

    def _passing(self, visit: Callable[..., None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")


class _Template(Template):
    """A compiled template; each rendering has a budget of its own."""

    environment: BoundedEnvironment

    def render(self, *args: Any, **kwargs: Any) -> str:
        with self.environment.spending(kwargs):
            return super().render(*args, **kwargs)

    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        with self.environment.spending(kwargs):
            for part in super().generate(*args, **kwargs):
                self.environment.budget.write(len(part))
                yield part


class _Filters(dict[str, Any]):
    """The filters that chat templates use, also those set later, each within the budget."""

    def __init__(self, environment: BoundedEnvironment, usual: dict[str, Any]) -> None:
        self._environment = environment
        for name in _FILTERS:
            self[name] = usual[name]

    def __setitem__(self, name: str, given: Any) -> None:
        environment = self._environment
        # Jinja hands some filters its context or environment before the value.
        before = 1 if hasattr(given, "jinja_pass_arg") else 0

        @wraps(given)
        def within(*args: Any, **kwargs: Any) -> Any:
            budget = environment.budget
            budget.step()
            value, *others = args[before:]
            if name in ("join", "list") and not isinstance(value, (str, dict)):
                value = list(value) if value is not None else value
                args = (*args[:before], value, *others)
            foresee(name, value, others, kwargs, budget)
            return budget.made(given(*args, **kwargs))

        super().__setitem__(name, within)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox that transformers compiles chat templates in, with a budget for each rendering."""

    code_generator_class = _Code
    template_class = _Template
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._local = threading.local()
        super().__init__(*args, **kwargs, optimized=False, finalize=self._printed)
        self.filters = _Filters(self, self.filters)
        self.filters[_EACH] = self._each
        self.globals.pop("lipsum")

    @property
    def budget(self) -> TemplateLimits:
        """What the rendering in this thread may spend; while a template is compiled, as much."""
        found: TemplateLimits | None = getattr(self._local, "budget", None)
        if found is None:
            found = self._local.budget = TemplateLimits()
        return found

    @contextmanager
    def spending(self, given: Any) -> Iterator[None]:
        """A rendering of `given`, with a budget of its own, in this thread."""
        self._local.budget = TemplateLimits(given)
        try:
            yield
        finally:
            self._local.budget = None

    def from_string(self, source: Any, *args: Any, **kwargs: Any) -> Template:
        """A template. Raises TooMuch where it is longer than any is."""
        if len(source) > MOST_SOURCE:
            raise TooMuch(f"it has {len(source):,} characters, and at most {MOST_SOURCE:,} are read")
        with self.spending(None):
            return super().from_string(source, *args, **kwargs)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            each = nodes.Filter(loop.iter, _EACH, [], [], None, None, lineno=loop.lineno)
            loop.iter = each.set_environment(self)
        return tree

    def _each(self, items: Any) -> Iterator[Any]:
        budget = self.budget
        for item in items:
            budget.step()
            yield item

    def _printed(self, value: Any) -> Any:
        return self.budget.printed(value)

    def made(self, value: Any) -> Any:
        """What a template has made: a list, a slice."""
        return self.budget.made(value)

    def joined(self, parts: tuple[Any, ...]) -> str:
        """`a ~ b`."""
        return self.concat(str(self._printed(part)) for part in parts)

    def concat(self, parts: Any) -> str:
        """The parts of a text, each paid for as it comes."""
        budget, kept = self.budget, []
        for part in parts:
            budget.write(len(part))
            kept.append(part)
        return "".join(kept)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """The sum, product, power or remainder, if it is of a reasonable size."""
        budget = self.budget
        if operator == "%" and isinstance(left, str):
            foresee("%", left, [right], {}, budget)
        elif operator == "*":
            foresee_product(left, right, budget)
            foresee_product(right, left, budget)
        elif operator == "**":
            foresee_power(left, right)
        return budget.made(super().call_binop(context, operator, left, right))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call what the sandbox allows."""
        budget = __self.budget
        budget.step()
        owner = getattr(__obj, "__self__", None) or getattr(getattr(__obj, "__wrapped__", None), "__self__", None)
        if isinstance(owner, str):
            args = tuple(list(each) if hasattr(each, "__next__") else each for each in args)
            name = __obj.__name__
            foresee("joined by" if name == "join" else name, owner, list(args), kwargs, budget)
        return budget.made(super().call(__context, __obj, *args, **kwargs))


def bound_templates() -> None:
    """From now on, transformers renders chat templates in this process within bounds. As often as one likes."""
    from transformers.utils import chat_template_utils

    if chat_template_utils.ImmutableSandboxedEnvironment is not BoundedEnvironment:
        chat_template_utils.ImmutableSandboxedEnvironment = BoundedEnvironment
        chat_template_utils._compile_jinja_template.cache_clear()
