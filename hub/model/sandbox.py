"""The sandbox in which templates run: Jinja2 with a bill for every step, so that none can loop, swell or look around.

Every loop turn, text, list, filter, call and comparison is charged for its size before it is made; a template that
runs out of steps raises. Only plain data and a list of harmless methods can be reached; an item comes before a
method of the same name. Steps are counted instead of time, so the same template ends the same way everywhere.
"""

# ruff: noqa: N802  (Jinja names the methods of visitors)

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, cast

from jinja2 import StrictUndefined, Undefined, nodes
from jinja2.environment import Template
from jinja2.exceptions import TemplateSyntaxError
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace, pass_context
from jinja2.visitor import NodeTransformer
from markupsafe import Markup, escape

from hub.errors import TemplateError
from hub.model.template_filters import PLAIN_TESTS, Meter, filters_for, join, printf, replace, show

RANGE_LIMIT: Final = 10_000
_NODE_LIMIT: Final = 10_000


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TEXT_METHODS: Final = _names(
    "capitalize casefold count endswith find index isalnum isalpha isascii isdecimal isdigit islower isnumeric isspace"
    " istitle isupper join lower lstrip partition removeprefix removesuffix replace rfind rindex rpartition rsplit"
    " rstrip split splitlines startswith strip swapcase title upper"
)
_LOOP: Final = _names(
    "cycle changed depth depth0 first index index0 last length nextitem previtem revindex revindex0"
)
_METHODS: Final[dict[type, frozenset[str]]] = {
    str: _TEXT_METHODS,
    Markup: _TEXT_METHODS,
    dict: _names("get items keys values"),
    list: _names("count index"),
    tuple: _names("count index grouper list"),
    Cycler: _names("current next reset"),
    LoopContext: _LOOP,
}

_ALLOWED_NODES: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.For, nodes.If, nodes.Name, nodes.Const, nodes.List,
    nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Getattr, nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test,
    nodes.Call, nodes.Keyword, nodes.Compare, nodes.Operand, nodes.CondExpr, nodes.And, nodes.Or, nodes.Not,
    nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Pow,
    nodes.Concat, nodes.Assign, nodes.AssignBlock, nodes.NSRef, nodes.Macro, nodes.CallBlock, nodes.FilterBlock,
    nodes.With,
)  # fmt: skip


class MeteredContext(Context):
    """The variables of one rendering, and its bill."""

    meter: Meter


def _bounded_range(*args: int) -> range:
    numbers = range(*args)
    if len(numbers) > RANGE_LIMIT:
        raise TemplateError(f"A range has at most {RANGE_LIMIT} numbers.")
    return numbers


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all templates: plain text, or HTML with everything escaped that is not marked safe."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    context_class = MeteredContext

    def __init__(self, *, html: bool) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=html, cache_size=0, finalize=_finalize)
        self.globals = {
            "range": _bounded_range, "dict": dict, "cycler": Cycler, "joiner": Joiner, "namespace": Namespace,
        }  # fmt: skip
        self.filters = filters_for(html=html)
        self.filters |= {"each!": _each, "spend!": _spend, "weigh!": _weigh, "concat!": _concat}
        self.tests = {name: test for name, test in self.tests.items() if name in PLAIN_TESTS}
        self._callable = (_bounded_range, dict, Cycler, Joiner, Namespace)

    def load(self, source: str) -> tuple[Template, int]:
        """Compile a text; also what one pass of it costs, without repetitions.

        Raises jinja2's TemplateSyntaxError, and RecursionError, SyntaxError or MemoryError for absurd nesting.
        """
        tree = self.parse(source)
        weight = _check(tree, self)
        _Metering(self).visit(tree)
        tree.set_environment(self)
        return Template.from_code(self, self.compile(tree), self.make_globals(None)), weight

    def context_for(self, template: Template, variables: Mapping[str, Any]) -> MeteredContext:
        """What one rendering starts with. As `Template.new_context`, which looks through its globals twice."""
        context = MeteredContext(self, {**self.globals, **variables}, template.name, template.blocks)
        context.meter = Meter()
        return context

    def getattr(self, obj: Any, attribute: str) -> Any:
        kind = type(obj)
        if kind is dict and attribute in obj:
            return obj[attribute]
        if isinstance(obj, Undefined):
            return obj[attribute]  # raises and names what is undefined
        if kind is Namespace and not attribute.startswith("_"):
            try:
                return getattr(obj, attribute)
            except AttributeError:
                return self.undefined(obj=obj, name=attribute)
        if isinstance(obj, tuple):
            kind = tuple  # a group of groupby
        if attribute in _METHODS.get(kind, ()) and hasattr(obj, attribute):
            return getattr(obj, attribute)
        return self.undefined(obj=obj, name=attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, (dict, list, tuple, str, range, Undefined)):
            try:
                return obj[argument]
            except (TypeError, LookupError):
                if isinstance(obj, dict) or not isinstance(argument, str):
                    return self.undefined(obj=obj, name=argument)
        return (
            self.getattr(obj, argument)
            if isinstance(argument, str)
            else self.undefined(obj=obj, name=argument)
        )

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = cast(MeteredContext, context).meter
        if operator == "%" and isinstance(left, str):
            return printf(meter, left, right)
        meter.weigh(left)
        meter.weigh(right)
        if operator == "*":
            meter.foresee_product(left, right)
        elif operator == "**":
            meter.foresee_power(left, right)
        return meter.weigh(self.binop_table[operator](left, right))

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = cast(MeteredContext, context).meter
        for name, value in (*enumerate(args), *kwargs.items()):
            if name not in ("_loop_vars", "_block_vars"):  # Jinja's own
                meter.weigh(value)
        owner = getattr(obj, "__self__", None)
        if isinstance(owner, str):
            meter.weigh(owner)
            if obj.__name__ == "join":
                return join(context, args[0] if args else (), owner)
            if obj.__name__ == "replace":
                return replace(context, owner, *args)
        elif not (
            isinstance(owner, (dict, list, tuple, Cycler, LoopContext))
            or isinstance(obj, (Macro, Joiner, Undefined))
            or any(obj is known for known in self._callable)
        ):
            raise TemplateError("Only macros and the listed functions and methods can be called.")
        result = context.call(obj, *args, **kwargs)
        if isinstance(owner, dict) and not isinstance(result, (dict, list, str)):
            result = list(result) if hasattr(result, "__iter__") else result
        return meter.weigh(result)


# ---------------------------------------------------------------- what is woven into templates


@pass_context
def _finalize(context: MeteredContext, value: Any) -> Any:
    """What `{{ … }}` shows: nothing for null, JSON for lists and objects, an error for what is no value."""
    if value is None:
        return ""
    if isinstance(value, str):
        context.meter.weigh(value)
        return value
    return show(context.meter, value)


@pass_context
def _each(context: MeteredContext, value: Any, weight: int) -> Iterator[Any]:
    for item in value:
        context.meter.spend(weight)
        yield item


@pass_context
def _spend(context: MeteredContext, cost: int) -> str:
    context.meter.spend(cost)
    return ""


@pass_context
def _weigh(context: MeteredContext, value: Any) -> Any:
    return context.meter.weigh(value)


@pass_context
def _concat(context: MeteredContext, parts: Sequence[Any]) -> str:
    meter = context.meter
    texts = ["" if part is None else part if isinstance(part, str) else show(meter, part) for part in parts]
    if any(hasattr(text, "__html__") for text in texts):
        texts = [escape(text) for text in texts]
    meter.foresee(sum(map(len, texts)))
    joined = "".join(texts)
    return Markup(joined) if any(isinstance(text, Markup) for text in texts) else joined  # noqa: S704  (escaped above)


def _check(tree: nodes.Template, environment: Sandbox) -> int:
    """Refuse what the language of notifications does not have; returns the number of nodes."""
    weight = 0
    todo: list[nodes.Node] = [tree]
    while todo:
        node = todo.pop()
        weight += 1
        if weight > _NODE_LIMIT:
            raise TemplateSyntaxError("the template is too large", node.lineno)
        if not isinstance(node, _ALLOWED_NODES):
            what = type(node).__name__.lower()
            raise TemplateSyntaxError(f"{what!r} is not part of the language of notifications", node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateSyntaxError("a loop cannot be recursive here", node.lineno)
        if isinstance(node, nodes.Filter) and node.name not in environment.filters:
            raise TemplateSyntaxError(f"there is no filter named {node.name!r}", node.lineno)
        if isinstance(node, nodes.Test) and node.name not in environment.tests:
            raise TemplateSyntaxError(f"there is no test named {node.name!r}", node.lineno)
        todo += node.iter_child_nodes()
    return weight


def _weight(body: Sequence[nodes.Node]) -> int:
    total, todo = 0, list(body)
    while todo:
        total += 1
        todo += todo.pop().iter_child_nodes()
    return total


def _filter(node: nodes.Expr, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


class _Metering(NodeTransformer):
    """Weaves the bill into a template. The names end in "!" so that no template can write them."""

    def __init__(self, environment: Sandbox) -> None:
        self._environment = environment
        self._repeated = 0  # inside what may run more than once

    def visit_For(self, node: nodes.For) -> nodes.Node:
        weight = 1 + _weight([*node.body, *([node.test] if node.test else [])])
        self._visit_repeated(node)
        node.iter = _filter(cast(nodes.Expr, node.iter), "each!", nodes.Const(weight))
        return node

    def visit_Macro(self, node: nodes.Macro) -> nodes.Node:
        return self._bill_body(node)

    def visit_CallBlock(self, node: nodes.CallBlock) -> nodes.Node:
        return self._bill_body(node)

    def _bill_body(self, node: nodes.Macro | nodes.CallBlock) -> nodes.Node:
        bill = nodes.Const(1 + _weight(node.body), lineno=node.lineno)
        self._visit_repeated(node)
        node.body.insert(0, nodes.Output([_filter(bill, "spend!")], lineno=node.lineno))
        return node

    def _visit_repeated(self, node: nodes.Node) -> None:
        self._repeated += 1
        self.generic_visit(node)
        self._repeated -= 1

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        static = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
        self.generic_visit(node)
        if self._repeated and static:
            node.nodes.insert(0, _filter(nodes.Const(1 + (static >> 4), lineno=node.lineno), "spend!"))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "concat!")

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return self._weigh_container(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        return self._weigh_container(node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:
        return self._weigh_container(node)

    def _weigh_container(self, node: nodes.List | nodes.Tuple | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        plain = all(isinstance(item, nodes.Const) for item in node.items)
        return node if plain else _filter(node, "weigh!")

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = self._weighed(node.expr)
        for operand in node.ops:
            operand.expr = self._weighed(operand.expr)
        return node

    def visit_Test(self, node: nodes.Test) -> nodes.Node:
        self.generic_visit(node)
        if node.args:  # the tests that compare
            node.node = self._weighed(node.node)
            node.args = [self._weighed(argument) for argument in node.args]
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            return _filter(node, "weigh!")  # a copy
        node.arg = self._weighed(node.arg)  # it may be hashed
        return node

    @staticmethod
    def _weighed(node: nodes.Expr) -> nodes.Expr:
        return node if isinstance(node, nodes.Const) else _filter(node, "weigh!")
