"""Folders of definitions: what is written is read back, and a mistake is one sentence with its file and key."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hub.definitions import Definitions, read_folder, write_folder
from hub.demo.player import demo_definitions
from hub.errors import DefinitionError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "types").mkdir()
    (tmp_path / "categories").mkdir()
    return tmp_path


def refusal(folder: Path) -> str:
    with pytest.raises(DefinitionError) as caught:
        read_folder(folder)
    return str(caught.value)


def test_types_categories_and_their_template_files(folder: Path):
    (folder / "categories/orders.toml").write_text('title = "Orders"\n[defaults]\nsms = false\n')
    (folder / "types/order.paid.toml").write_text(
        'category = "orders"\n'
        'title = "Order {{ data.number }} is paid"\n'
        'body_file = "order.paid.body.txt"\n'
        'schema_file = "order.paid.schema.json"\n'
        'expose = ["number"]\n'
        "[channels.in_app]\n"
        'when = "always"\n'
        "[channels.email]\n"
        'when = "unseen"\n'
        "after_seconds = 60\n"
        'html_file = "mail/paid.html"\n'
        "[locales.ko]\n"
        'title = "주문"\n'
        'body_file = "order.paid.ko.txt"\n'
        "[locales.ko.channels.email]\n"
        'subject_file = "order.paid.ko.txt"\n'
    )
    (folder / "types/mail").mkdir()
    (folder / "types/mail/paid.html").write_text("<p>\nthanks\n</p>\n")
    (folder / "types/order.paid.body.txt").write_text("Thank you,\n{{ recipient.name }}\n")
    (folder / "types/order.paid.ko.txt").write_text("고맙습니다")
    (folder / "types/order.paid.schema.json").write_text('{"properties": {"number": {"enum": [1, null]}}}')
    found = read_folder(folder)
    assert found.categories == {"orders": {"title": "Orders", "defaults": {"sms": False}}}
    assert found.types == {
        "order.paid": {
            "category": "orders",
            "title": "Order {{ data.number }} is paid",
            "body": "Thank you,\n{{ recipient.name }}\n",
            "schema": {"properties": {"number": {"enum": [1, None]}}},
            "expose": ["number"],
            "channels": {
                "in_app": {"when": "always"},
                "email": {"when": "unseen", "after_seconds": 60, "html": "<p>\nthanks\n</p>\n"},
            },
            "locales": {
                "ko": {
                    "title": "주문",
                    "body": "고맙습니다",
                    "channels": {"email": {"subject": "고맙습니다"}},
                }
            },
        }
    }


def test_folders_inside_only_order_the_files(folder: Path):
    (folder / "types/shop").mkdir()
    (folder / "types/shop/order.paid.toml").write_text('category = "orders"')
    assert list(read_folder(folder).types) == ["order.paid"]


def test_a_byte_order_mark_is_no_mistake(folder: Path):
    (folder / "types/a.toml").write_bytes(b'\xef\xbb\xbfcategory = "x"\r\ntitle_file = "a.txt"\r\n')
    (folder / "types/a.txt").write_bytes("\ufeffhello".encode())
    assert read_folder(folder).types == {"a": {"category": "x", "title": "hello"}}


@pytest.mark.req("R35")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("category =", "types/a.toml: this is not TOML"),
        ("x = " + "[" * 5000, "types/a.toml: this is not TOML"),
        ("title = 'x'", "types/a.toml: the key 'category' is missing."),
        ("category = 'x'\ntitel = 'y'", "types/a.toml: the key 'titel' is unknown; did you mean 'title'?"),
        ("category = 'x'\ncolour = 'y'", "types/a.toml: the key 'colour' is unknown."),
        ("category = 'x'\ntitle = 1", "types/a.toml: the key 'title'"),
        ("category = 'x y'", "types/a.toml: the key 'category'"),
        ("category = 'x'\nchannels = 1", "types/a.toml: the key 'channels'"),
        ("category = 'x'\n[channels.fax]", "types/a.toml: the key 'channels': invalid enum value 'fax'."),
        (
            "category = 'x'\n[channels.sms]\nwhen = 'later'",
            "the key 'channels.sms.when': invalid enum value 'later'.",
        ),
        (
            "category = 'x'\n[channels.sms]\nwenn = 'never'",
            "the key 'wenn' in 'channels.sms' is unknown; did you mean",
        ),
        (
            "category = 'x'\n[locales.ko]\ntilte = 'y'",
            "the key 'tilte' in 'locales.ko' is unknown; did you mean 'title'",
        ),
        (
            "category = 'x'\ntitle = 2026-01-01",
            "types/a.toml: 'title' is a date or time; write it as a text in quotes.",
        ),
        (
            "category = 'x'\n[throttle]\nlimit = nan",
            "types/a.toml: 'throttle.limit' is nan, which JSON cannot say.",
        ),
        (
            "category = 'x'\nbody_file = 'b.txt'",
            "types/a.toml: 'body_file': the file 'b.txt' does not exist.",
        ),
        ("category = 'x'\nbody_file = 3", "types/a.toml: 'body_file' must name a file beside it."),
        (
            "category = 'x'\nbody = 'b'\nbody_file = 'here.txt'",
            "'body_file' and 'body' both give the text; keep one.",
        ),
        (
            "category = 'x'\nbody_file = '../../secret.txt'",
            "'body_file': the file '../../secret.txt' leads out of",
        ),
        (
            "category = 'x'\nbody_file = '/etc/passwd'",
            "'body_file': the file '/etc/passwd' leads out of the folder",
        ),
        (
            "category = 'x'\nbody_file = 'a\\u0000b'".replace("'", '"'),
            "'body_file': the file 'a\\x00b' cannot be read",
        ),
        ("category = 'x'\nbody_file = '.'", "'body_file': the file '.' cannot be read"),
        (f"category = 'x'\nbody_file = '{'n' * 300}'", "cannot be read: File name too long."),
        ("category = 'x'\nbody_file = 'latin.txt'", "'body_file': the file 'latin.txt': byte 2 is not UTF-8"),
        (
            "category = 'x'\n[locales.ko]\nbody_file = 'no.txt'",
            "'locales.ko.body_file': the file 'no.txt' does not exist.",
        ),
        (
            "category = 'x'\n[channels.email]\nhtml_file = 'no'",
            "'channels.email.html_file': the file 'no' does not exist",
        ),
        ("category = 'x'\nexpose_file = 'here.txt'", "types/a.toml: the key 'expose_file' is unknown"),
        ("category = 'x'\nschema_file = 'here.txt'", "'schema_file' is not JSON"),
        ("category = 'x'\nschema_file = 'nan.json'", "'schema_file' is not JSON: it holds NaN."),
    ],
)
def test_a_mistake_names_its_file_and_key(folder: Path, text: str, expected: str):
    (folder.parent / "secret.txt").write_text("secret")
    (folder / "types/here.txt").write_text("here")
    (folder / "types/latin.txt").write_bytes(b"gr\xfc\xdfe")
    (folder / "types/nan.json").write_text('{"maximum": NaN}')
    (folder / "types/a.toml").write_text(text)
    said = refusal(folder)
    assert expected in said
    assert "\n" not in said
    assert said.endswith((".", "?"))


def test_a_mistake_in_a_category(folder: Path):
    (folder / "categories/orders.toml").write_text('titel = "Orders"')
    assert refusal(folder) == "categories/orders.toml: the key 'titel' is unknown; did you mean 'title'?"


def test_a_category_has_no_template_files(folder: Path):
    (folder / "categories/orders.toml").write_text('title_file = "orders.txt"')
    assert "the key 'title_file' is unknown" in refusal(folder)


def test_a_file_that_is_not_utf_8(folder: Path):
    (folder / "types/a.toml").write_bytes(b'category = "\xff"')
    assert refusal(folder) == "types/a.toml: byte 12 is not UTF-8; save the file as UTF-8."


def test_a_name_that_cannot_be_one(folder: Path):
    (folder / "types/order paid.toml").write_text('category = "x"')
    assert refusal(folder).startswith("types/order paid.toml: 'order paid' cannot be a name")


def test_two_definitions_of_one_name(folder: Path):
    (folder / "types/shop").mkdir()
    for place in ("types/order.paid.toml", "types/shop/order.paid.toml"):
        (folder / place).write_text('category = "orders"')
    assert refusal(folder) == (
        "types/shop/order.paid.toml: 'order.paid' is defined in types/order.paid.toml already."
    )


def test_links_that_lead_out_of_the_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory):
    outside = tmp_path_factory.mktemp("outside") / "secret.txt"
    outside.write_text("secret")
    (folder / "types/link.txt").symlink_to(outside)
    (folder / "types/a.toml").write_text('category = "x"\ntitle_file = "link.txt"')
    assert "the file 'link.txt' leads out of the folder" in refusal(folder)


def test_links_in_a_circle(folder: Path):
    (folder / "types/link.txt").symlink_to(folder / "types/link.txt")
    (folder / "types/a.toml").write_text('category = "x"\ntitle_file = "link.txt"')
    assert "the file 'link.txt' cannot be read" in refusal(folder)


def test_folders_that_define_nothing(tmp_path: Path):
    assert "is not a folder" in refusal(tmp_path / "missing")
    assert "has neither types/ nor categories/" in refusal(tmp_path)
    (tmp_path / "order.paid.toml").write_text('category = "x"')
    assert refusal(tmp_path) == "order.paid.toml lies outside types/ and categories/, so it defines nothing."


names = st.from_regex(r"[a-zA-Z0-9._:@+|~=-]{1,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=60) | st.sampled_from(
    ["one\ntwo\n", "\ufeffmark\n", "\r\n", "quotes \"\"\" and '''\n", "{{ data.x }}\\\n"]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
in_app = st.fixed_dictionaries({"when": st.sampled_from(["always", "never"])})
email = st.fixed_dictionaries(
    {"when": st.just("unseen")},
    optional={
        "after_seconds": st.integers(0, 100),
        "subject": texts,
        "html": texts,
        "mjml": texts,
        "text": texts,
    },
)
locale = st.fixed_dictionaries(
    {},
    optional={
        "title": texts,
        "body": texts,
        "channels": st.fixed_dictionaries(
            {},
            optional={
                "email": st.dictionaries(st.sampled_from(["subject", "html"]), texts),
                "sms": st.dictionaries(st.just("text"), texts),
            },
        ),
    },
)
types = st.fixed_dictionaries(
    {"category": names},
    optional={
        "critical": st.booleans(),
        "title": texts,
        "body": texts,
        "expose": st.lists(texts, max_size=3),
        "schema": st.dictionaries(texts, json_values, max_size=3),
        "channels": st.fixed_dictionaries({}, optional={"in_app": in_app, "email": email}),
        "locales": st.dictionaries(texts, locale, max_size=3),
        "throttle": st.just({"limit": 1, "per_seconds": 60}),
    },
)
categories = st.fixed_dictionaries(
    {},
    optional={
        "title": texts,
        "description": texts,
        "hidden": st.booleans(),
        "defaults": st.dictionaries(st.sampled_from(["email", "sms"]), st.booleans()),
    },
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    types=st.dictionaries(names | st.sampled_from(["a", "a.ko", "a.b", "..", "a.toml"]), types, max_size=4),
    categories=st.dictionaries(names, categories, max_size=2),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, types: dict[str, Any], categories: dict[str, Any]
):
    definitions = Definitions(types, categories)
    folder = tmp_path_factory.mktemp("export")
    write_folder(folder, definitions)
    assert read_folder(folder) == definitions
    write_folder(folder, definitions)  # the same again into the same folder
    assert read_folder(folder) == definitions


def test_the_demo_survives_an_export(tmp_path: Path):
    definitions = demo_definitions()
    write_folder(tmp_path, definitions)
    assert read_folder(tmp_path) == definitions


def test_long_texts_go_to_files_beside(tmp_path: Path):
    mail = {"when": "always", "subject": "short", "html": "<p>\nlong\n</p>\n"}
    korean = {"body": "긴\n글\n"}
    paid = {"category": "orders", "channels": {"email": mail}, "locales": {"ko": korean}}
    write_folder(tmp_path, Definitions({"order.paid": paid}))
    assert (tmp_path / "types/order.paid.email.html").read_text() == "<p>\nlong\n</p>\n"
    assert (tmp_path / "types/order.paid.ko.body.txt").read_text() == "긴\n글\n"
    assert 'html_file = "order.paid.email.html"' in (tmp_path / "types/order.paid.toml").read_text()


def test_template_files_of_two_types_never_meet(tmp_path: Path):
    definitions = Definitions(
        {
            "a": {"category": "x", "locales": {"b": {"body": "of a\nin b"}}},
            "a.b": {"category": "x", "body": "of a.b\n"},
        }
    )
    write_folder(tmp_path, definitions)
    assert read_folder(tmp_path) == definitions


def test_nulls_count_as_left_out(tmp_path: Path):
    write_folder(
        tmp_path, Definitions({"a": {"category": "x", "title": None, "locales": {"ko": {"body": None}}}})
    )
    assert read_folder(tmp_path).types == {"a": {"category": "x", "locales": {"ko": {}}}}


def test_an_export_does_not_mix_with_older_definitions(tmp_path: Path):
    write_folder(tmp_path, Definitions({"old": {"category": "x"}}))
    with pytest.raises(
        DefinitionError, match=r"types/old.toml is in the folder already and not in the export"
    ):
        write_folder(tmp_path, Definitions({"new": {"category": "x"}}))
    assert list(read_folder(tmp_path).types) == ["old"]


def test_a_file_where_the_folder_should_be(tmp_path: Path):
    (tmp_path / "types").write_text("in the way")
    with pytest.raises(DefinitionError, match="cannot be written"):
        write_folder(tmp_path, Definitions({"a": {"category": "x"}}))


@pytest.mark.parametrize("name", ["../evil", "a/b", "", "a\n"])
def test_names_that_are_no_file_names(tmp_path: Path, name: str):
    with pytest.raises(DefinitionError, match="cannot be the name of a file"):
        write_folder(tmp_path, Definitions({name: {"category": "x"}}))


def test_a_locale_cannot_lead_a_file_out_of_the_folder(tmp_path: Path):
    definitions = Definitions({"a": {"category": "x", "locales": {"../../evil": {"body": "two\nlines"}}}})
    write_folder(tmp_path / "export", definitions)
    assert read_folder(tmp_path / "export") == definitions
    assert [entry.name for entry in tmp_path.iterdir()] == ["export"]
