"""Templates: what they can say, and that none can loop, swell, look around or change what it is given."""

import copy
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.errors import TemplateError
from hub.model.template_filters import STEP_LIMIT, TEXT_LIMIT, Meter
from hub.model.templates import VARIABLES, compile_check, is_plain, names_in, render
from hub.model.types import ChannelRule, Texts, TypeDefinition
from hub.model.vocabulary import Channel

VALUES = {
    "data": {
        "n": 7,
        "text": "x<b>y",
        "none": None,
        "list": [3, 1, 2],
        "items": [{"name": "key", "price": 2.5}, {"name": "jar", "price": 1}],
        "deep": {"er": {"value": "v"}},
        "keys": "an item named like a method",
        "big": "x" * 60_000,
        "many": list(range(20_000)),
    },
    "recipient": {"name": None},
    "items": [{"a": 1}, {"a": 2}],
    "count": 2,
    "urls": {"inbox": "/inbox"},
    "actor": {"name": "Bob"},
    "event": {"id": "evt_1"},
}


@pytest.mark.req("R16")
@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("plain { text }", "plain { text }"),
        ("Order {{ data.n }}", "Order 7"),
        ("{{ data['n'] }}{{ data.list.0 }}{{ data.list[-1] }}", "732"),
        ("{{ data.none }}|{{ recipient.name }}", "|"),
        ("{{ recipient.name or 'you' }}", "you"),
        ("{{ data.deep.er.value }}", "v"),
        ("{{ data.nope|default('-') }}{{ 'no' if data.nope is undefined }}", "-no"),
        ("{% if data.n > 5 and 'b' in data.text %}yes{% else %}no{% endif %}", "yes"),
        (
            "{% for i in data.list|sort %}{{ loop.index }}:{{ i }}{{ ',' if not loop.last }}{% endfor %}",
            "1:1,2:2,3:3",
        ),
        ("{% for k, v in data.deep.er.items() %}{{ k }}={{ v }}{% endfor %}", "value=v"),
        ("{% for i in [] %}x{% else %}none{% endfor %}", "none"),
        ("{% for i in data.list if i > 1 %}{{ i }}{% endfor %}", "32"),
        ("{{ data.list|length }} {{ data.list|join('+') }} {{ data.list|sum }}", "3 3+1+2 6"),
        ("{{ data['items']|map(attribute='name')|join(', ')|upper }}", "KEY, JAR"),
        ("{{ data['items']|selectattr('price', 'gt', 2)|map(attribute='name')|first }}", "key"),
        ("{{ data['items']|sum(attribute='price') }}", "3.5"),
        (
            "{% for g in data['items']|groupby('name') %}{{ g.grouper }}{{ g.list|length }}{% endfor %}",
            "jar1key1",
        ),
        ("{{ '%.2f'|format(2.5) }} {{ '%05d' % data.n }} {{ '%(a)s' % {'a': 1} }}", "2.50 00007 1"),
        ("{{ data.text ~ data.n ~ None }}", "x<b>y7"),
        (
            "{{ data.text.upper() }} {{ data.text.replace('x', 'z')[:2] }} {{ '-'.join(['a', 'b']) }}",
            "X<B>Y z< a-b",
        ),
        ("{{ 7.456|round(1) }} {{ 2 ** 5 }} {{ 7 // 2 }} {{ 7 % 4 }} {{ 2 * 3 - 1 }}", "7.5 32 3 3 5"),
        (
            "{% set ns = namespace(t=0) %}{% for i in data.list %}{% set ns.t = ns.t + i %}{% endfor %}{{ ns.t }}",
            "6",
        ),
        ("{% macro m(x, y=2) %}[{{ x }}{{ y }}]{% endmacro %}{{ m(1) }}{{ m(1, 3) }}", "[12][13]"),
        ("{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{% endcall %}", "<in>"),
        ("{% set x %}a{{ data.n }}{% endset %}{{ x }}{{ x }}", "a7a7"),
        ("{% filter upper %}abc{{ data.n }}{% endfilter %}", "ABC7"),
        ("{% with q = data.n %}{{ q }}{% endwith %}", "7"),
        (
            "{% set c = cycler('a', 'b') %}{% for i in data.list %}{{ c.next() }}{{ loop.cycle(1, 2) }}{% endfor %}",
            "a1b2a1",
        ),
        ("{% set j = joiner(', ') %}{% for i in data.list %}{{ j() }}{{ i }}{% endfor %}", "3, 1, 2"),
        ("{{ data.list }} {{ data.deep }}", '[3,1,2] {"er":{"value":"v"}}'),
        ("{{ data.list|tojson }} {{ data.text|tojson }}", '[3,1,2] "x\\u003cb\\u003ey"'),
        ("{{ data.list|batch(2)|list }} {{ data.list|slice(2)|list }}", "[[3,1],[2]] [[3,1],[2]]"),
        ("{{ 'a\nb'|indent(2) }}", "a\n  b"),
        (
            "{{ data.text|truncate(4, true, '', 0) }} {{ 'a b'|wordcount }} {{ 'a b'|urlencode }}",
            "x<b> 2 a%20b",
        ),
        (
            "{{ items|map(attribute='a')|list }} {{ count }} {{ urls.inbox }} {{ actor.name }}",
            "[1,2] 2 /inbox Bob",
        ),
        (
            "{{ [3, 1]|max }}{{ [3, 1]|min }}{{ [1, 1, 2]|unique|list }}{{ 'ab'|reverse }}{{ '5'|int + 1 }}",
            "31[1,2]ba6",
        ),
        ("{{ range(3)|list }} {{ dict(a=1).get('b', 0) }}", "[0,1,2] 0"),
        ("{{ data.text|e }}", "x&lt;b&gt;y"),
        ("{# a comment #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
        ("{{ true }} {{ 1.5 }} {{ 1 == 1.0 }}", "True 1.5 True"),
    ],
)
def test_what_templates_can_say(source, shown):
    assert render(source, VALUES) == shown


@pytest.mark.req("R16")
def test_an_item_comes_before_a_method_of_the_same_name():
    assert render("{{ data.keys }}", VALUES) == "an item named like a method"
    assert render("{{ data['items'][0].name }}{{ data.items[1].name }}", VALUES) == "keyjar"
    assert render("{{ data.items() }}", {"data": {"a": 1}}) == '[["a",1]]'
    with pytest.raises(TemplateError, match="cannot be shown"):
        render("{{ data.items }}", {"data": {"a": 1}})


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("{{ data.text }}", "x&lt;b&gt;y"),
        ("{{ data.text|safe }}", "x<b>y"),
        ("{{ '<i>'|safe ~ data.text }}", "<i>x&lt;b&gt;y"),
        ("{% macro m(x) %}<p>{{ x }}</p>{% endmacro %}{{ m(data.text) }}", "<p>x&lt;b&gt;y</p>"),
        ("{% set x %}<p>{{ data.text }}{% endset %}{{ x }}", "<p>x&lt;b&gt;y"),
        ("{{ ['<', '>']|join('&') }}", "&lt;&amp;&gt;"),
        ("{{ data.text|replace('x', '<') }}", "&lt;&lt;b&gt;y"),
        ("{{ data.text|e }}{{ data.text|upper }}", "x&lt;b&gt;yX&lt;B&gt;Y"),
        ("{{ ['</script>'] }}", "[&#34;&lt;/script&gt;&#34;]"),
        (
            "<script>x = {{ ['</script>\\'&']|tojson }}</script>",
            '<script>x = ["\\u003c/script\\u003e\\u0027\\u0026"]</script>',
        ),
        ("{{ '<%s>'|safe|format('<') }}", "<&lt;>"),
        ("{{ '<%s>'|safe % '<' }}", "<&lt;>"),
        ("{{ 'a<\nb'|indent(1) }}", "a&lt;\n b"),
        ("<b title='{{ \"'\" }}'>", "<b title='&#39;'>"),
    ],
)
def test_html_is_escaped_unless_its_author_says_so(source, shown):
    assert render(source, VALUES, html=True) == shown


@pytest.mark.req("R16")
@pytest.mark.parametrize(
    ("source", "name"),
    [("{{ nope }}", "nope"), ("{{ data.nope }}", "nope"), ("{{ data.deep.nope.x }}", "nope"), ("{{ data.list.7 }}", "7"),
     ("{{ nope.x }}", "nope"), ("{% for i in nope %}{% endfor %}", "nope"), ("{{ nope() }}", "nope"), ("{{ 1 + nope }}", "nope"),
     ("{{ data.nope ~ 'x' }}", "nope"), ("{% if data.nope %}{% endif %}", "nope"), ("{{ data.nope|upper }}", "nope"),
     ("{{ [data.nope]|join }}", "nope")],
)  # fmt: skip
def test_an_undefined_name_is_an_error_that_names_it(source, name):
    with pytest.raises(TemplateError, match=name):
        render(source, VALUES)


LOOP = "{% for a in range(9999) %}"
HOSTILE = [
    # loops
    LOOP * 3 + "x" + "{% endfor %}" * 3,
    LOOP * 2 + "{% endfor %}" * 2,
    LOOP * 2 + "{% if data.n == 8 %}{% endif %}{% endfor %}" + "{% endfor %}",
    "{% for a in data.big %}{% for b in data.big %}{% endfor %}{% endfor %}",
    "{% for a in data.many %}{% for b in data.many %}{{ a }}{% endfor %}{% endfor %}",
    "{{ range(1000000)|list|length }}",
    "{{ range(10**9)|length }}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    # texts
    "{{ 'a' * 100000000 }}",
    "{{ 100000000 * 'a' }}",
    "{{ 'a' * 10 * 10 * 10 * 10 * 10 * 10 * 10 }}",
    "{{ '%1000000d' % 1 }}",
    "{{ '%*d' % (1000000, 1) }}",
    "{{ '%.1000000f' % 1.5 }}",
    "{{ '%(a)1000000s' % {'a': 1} }}",
    "{{ '%1000000d'|format(1) }}",
    "{{ ('%s' * 30000) % data.many }}",
    "{{ '%s' % data.deep }}",
    "{{ data.big|replace('x', 'y' * 60000) }}",
    "{{ data.big.replace('x', data.big) }}",
    "{{ data.big|replace('', 'yyyyy') }}",
    "{{ data.many|join(data.big) }}",
    "{{ data.big.join(['a'] * 1000) }}",
    "{{ data.big ~ data.big }}",
    "{{ data.big + data.big }}",
    "{{ data.big }}{{ data.big }}",
    "{{ data.big|indent(100) }}{{ ('\n' * 60000)|indent(100) }}",
    "{{ 'a'|indent(1000000) }}",
    LOOP + "{{ data.big }}{% endfor %}",
    LOOP + "{% set x = data.big|upper %}{% endfor %}",
    LOOP + "{% set x = data.big[1:] %}{% endfor %}",
    LOOP + "{% set x = data[data.big[1:]]|default('') %}{% endfor %}",
    LOOP + "{% set x = data.big|e %}{% endfor %}",
    "{% set x %}" + LOOP + "{{ data.big }}{% endfor %}{% endset %}",
    "{% set x %}" + LOOP + "y" * 5000 + "{% endfor %}{% endset %}",
    "{% macro m() %}" + "x" * 50_000 + "{% endmacro %}" + LOOP + "{% set z = m() %}{% endfor %}",
    "{% filter replace('x', 'y' * 60000) %}" + "x" * 1000 + "{% endfilter %}",
    "{% set ns = namespace(x='a') %}" + LOOP + "{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "{% set ns = namespace(x='a') %}" + LOOP + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ {'a': data.big}|tojson|e|e|e|e }}{{ ('&' * 60000)|e|e|e }}",
    # lists and objects
    "{{ [1] * 100000000 }}",
    "{% set ns = namespace(x=[1]) %}" + LOOP + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{% set ns = namespace(x=[1]) %}" + LOOP + "{% set ns.x = [ns.x, ns.x] %}{% endfor %}",
    "{% set ns = namespace(x={}) %}" + LOOP + "{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}",
    "{% set a = [1] * 8 %}" + "{% set a = [a, a, a, a, a, a, a, a] %}" * 12 + "{{ a }}",
    "{% set a = (1, 1) %}" + "{% set a = (a, a) %}" * 30 + "{{ a == 1 }}",
    "{% set a = dict(x=1) %}" + "{% set a = dict(x=a, y=a) %}" * 30 + "{{ a|length }}",
    "{{ data.many|select('in', data.many)|list|length }}",
    "{{ data.many|map('replace', '1', data.big)|list|length }}",
    "{{ data.many|batch(10000, 'x')|list|length }}{{ data.many|batch(1000000000, 'x')|list }}",
    "{{ data.many|slice(10000)|list|length }}{{ [1]|slice(1000000000)|list }}",
    LOOP + "{% set x = data.many|sort %}{% endfor %}",
    LOOP + "{% set x = data.many == data.many|list %}{% endfor %}",
    LOOP + "{% set x = range(9999)|list %}{% endfor %}",
    LOOP + "{% set x = dict(a=1).items() %}{% endfor %}" + LOOP + "{% set x = data.many|groupby(0) %}{% endfor %}",
    "{{ data.many|sum(start=[]) }}",
    "{{ data.many|tojson(10000)|length }}",
    # numbers
    "{{ 7 ** 4000000 }}",
    "{{ 7 ** 7 ** 7 ** 7 }}",
    "{{ 2 ** data.big }}",
    "{{ 5|round(-1000000000) }}",
    "{{ ('f' * 60000)|int(0, 16) }}",
    "{% set ns = namespace(x=3) %}" + LOOP + "{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "{% set ns = namespace(x=3) %}" + LOOP + "{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "{{ 1 / 0 }}",
    "{{ 10.0 ** 400 }}",
    "{{ (-8) ** 0.5 }}",
    # reaching out
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}",
    "{{ data.__class__ }}",
    "{{ data|map(attribute='__class__')|list }}",
    "{{ [data]|map(attribute='__class__')|list }}",
    "{{ [data]|groupby('__class__') }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ joiner.__init__ }}",
    "{{ namespace.__init__ }}",
    "{{ namespace(a=1)._Namespace__attrs }}",
    "{{ range.__init__ }}",
    "{{ self }}",
    "{{ self._TemplateReference__context }}",
    "{{ loop }}",
    "{{ (loop for loop in []) }}",
    "{% for x in [1] %}{{ loop.__init__ }}{% endfor %}",
    "{% for x in [1] %}{{ loop._iterator }}{% endfor %}",
    "{% macro m() %}{{ m._func }}{% endmacro %}{{ m() }}",
    "{{ data.text.format(data) }}",
    "{{ '{0.__class__}'.format(1) }}",
    "{{ '{:1000000}'.format(1) }}",
    "{{ data.text.format_map(data) }}",
    "{{ data.text.encode() }}",
    "{{ data.text.center(1000000) }}",
    "{{ data.text.translate(data) }}",
    "{{ ''.maketrans('a', 'b') }}",
    "{{ data.text|attr('upper') }}",
    "{{ dict.mro() }}",
    "{{ dict.fromkeys(range(9)) }}",
    "{{ lipsum(1000) }}",
    "{{ data|random }}",
    "{{ data|pprint }}",
    "{{ data.big|urlize }}",
    "{{ data.big|center(70000) }}",
    "{{ data.big|wordwrap(1, wrapstring=data.big) }}",
    "{{ data|xmlattr }}",
    "{% include 'x' %}",
    "{% import 'x' as y %}",
    "{% from 'x' import y %}",
    "{% extends 'x' %}",
    "{% block a %}{% endblock %}",
    "{% autoescape false %}x{% endautoescape %}",
    "{{ 1|spend }}",
    "{{ 'x'|nosuch }}",
    "{{ 'x' is nosuch }}",
    "{{ [1]|map('nosuch')|list }}",
    "{{ [-1000000000]|map('spend!')|list }}" + LOOP * 2 + "{% endfor %}" * 2,
    "{{ [[1]]|map('each!', -1000000000)|list }}" + LOOP * 2 + "{% endfor %}" * 2,
    # changing what is given
    "{% set data.n = 1 %}",
    "{{ data.update({'q': 1}) }}",
    "{{ data.list.append(1) }}",
    "{{ data.list.sort() }}",
    "{{ data.pop('n') }}",
    "{{ data.list.clear() }}",
    # nonsense
    "{{", "{% if %}", "{% endfor %}", "{{ }}", "{# open", "{% raw %}open", "{{ 'open }}", "{{ a b }}", "{% for in x %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 5000 + "1" + "]" * 5000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ " + "not " * 5000 + "1 }}",
    "{{ " + "1+" * 5000 + "1 }}",
    "{{ " + "1 if 1 else " * 3000 + "1 }}",
    "{{ data.n" + "|string" * 3000 + " }}",
    "{{ data" + ".a" * 3000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{% for a in [1] %}" * 40 + "{% endfor %}" * 40,
    "{{ 1 }}" * 11_000,
]  # fmt: skip


@pytest.mark.req("R35")
@pytest.mark.parametrize("html", [False, True], ids=["text", "html"])
@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_a_hostile_template_ends_soon_with_a_sentence(number, html):
    before = copy.deepcopy(VALUES)
    began = time.process_time()
    with pytest.raises(TemplateError) as caught:
        render(HOSTILE[number], VALUES, html=html)
    assert time.process_time() - began < 1.5
    assert 10 < len(str(caught.value)) < 400
    assert str(caught.value).endswith(".")
    assert before == VALUES


PIECES = st.sampled_from(
    ["{{ data.n }}", "{{ data.list|join }}", "{% for i in data.list %}", "{% for i in data.many %}", "{% endfor %}", "x" * 50,
     "{% set ns = namespace(t='a') %}", "{% set ns.t = ns.t ~ ns.t %}", "{% set ns.t = [ns.t, ns.t] %}", "{{ ns.t }}",
     "{{ data.big|upper }}", "{% if data.n %}", "{% endif %}", "{% macro m(x) %}", "{% endmacro %}", "{{ m(data.big) }}",
     "{{ i * 3 }}",
     "{{ data.many|sort|length }}", "{% set q %}", "{% endset %}", "{{ q * 9 }}", "{{ nope }}", "{% filter upper %}",
     "{% endfilter %}", "{{ ns.t == ns.t }}", "{{ data|tojson|length }}"]
)  # fmt: skip


@pytest.mark.req("R35")
@given(st.lists(PIECES, max_size=14).map("".join), st.booleans())
def test_any_mixture_ends_with_a_bounded_text_or_a_sentence(source, html):
    began = time.process_time()
    try:
        shown = render(source, VALUES, html=html)
    except TemplateError as error:
        shown = str(error)
    assert len(shown) <= TEXT_LIMIT
    assert time.process_time() - began < 1.5


def test_a_meter_cannot_be_refunded():
    meter = Meter()
    meter.spend(-1_000_000)
    with pytest.raises(TemplateError):
        meter.spend(STEP_LIMIT)


def test_a_long_digest_is_well_within_the_bounds():
    items = [{"title": f"Order {number}", "names": ["a", "b"]} for number in range(300)]
    line = "<li>{{ i.title|upper }}: {{ i.names|join(', ') }}"
    source = "{% for i in items %}" + line + "{% if not loop.last %},{% endif %}</li>{% endfor %}"
    assert render(source, {"items": items}, html=True).count("<li>") == 300


# ---------------------------------------------------------------- definitions


def test_plain_texts_need_no_engine():
    assert is_plain("a { b } %")
    assert not is_plain("{{ x }}")
    assert names_in("a {b}") == frozenset()
    assert names_in("{{ recipient.name }}{% for data in items %}{{ data }}{% endfor %}") == {
        "recipient",
        "items",
    }
    assert names_in("{{ broken") == frozenset()


@pytest.mark.req("R35")
def test_a_type_with_broken_templates_is_refused_with_every_place():
    definition = TypeDefinition(
        category="c",
        title="{{ data.number",
        body="{{ nope }} and {{ data.x }}",
        channels={
            Channel.EMAIL: ChannelRule(
                subject="{% include 'x' %}", html="{{ data.x|safe }}", text="{{ data.x|safe }}"
            )
        },
        locales={"ko": Texts(title="{{ 1|nosuch }}", channels={Channel.EMAIL: {"html": "{% for %}"}})},
    )
    errors = compile_check(definition)
    assert [error.pointer for error in errors] == [
        "/title",
        "/body",
        "/channels/email/subject",
        "/channels/email/text",
        "/locales/ko/title",
        "/locales/ko/channels/email/html",
    ]
    assert {error.code for error in errors} == {"invalid_template"}
    assert "'nope'" in errors[1].detail
    assert errors[0].detail.startswith("Line 1:")


def test_every_promised_variable_is_known_to_the_check():
    body = "".join(f"{{{{ {name} }}}}" for name in VARIABLES)
    assert (
        compile_check(TypeDefinition(category="c", body=body + "{{ range(3)|list }}{{ namespace(a=1).a }}"))
        == []
    )
