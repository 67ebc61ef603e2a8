"""JSON of a schema: what closes and validates, what is refused by name, what is rewritten."""

import json
import random
import re

import jsonschema
import pytest
from grammar_samples import (
    family_tokenizer,
    piece_tokenizer,
    teacher_force,
    text_of,
    wanderer,
    write_answer,
)

from ibllm_tools.errors import ConfigurationError, IbllmError, SchemaError
from ibllm_tools.grammar import compile_json
from ibllm_tools.grammar.schemas import prepare_answer

PERSON = {
    "type": "object",
    "title": "Person",
    "properties": {
        "name": {"type": "string", "description": "The name."},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "email": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}},
        "married": {"type": "boolean", "default": False},
    },
    "required": ["name", "age"],
}
TREE = {
    "$ref": "#/$defs/Node",
    "$defs": {
        "Node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
            },
            "required": ["value"],
        }
    },
}
SCHEMAS = {
    "person": PERSON,
    "tree": TREE,
    "any object": None,
    "anything": {},
    "list": {"type": "array", "items": PERSON, "minItems": 1},
    "enum": {"enum": ["red", "green", 3, None, {"deep": [1]}]},
    "long enum": {"enum": ["a very long value that nobody would like to close", "b"]},
    "const": {"type": "object", "properties": {"kind": {"const": "Ünï\"code"}},
              "required": ["kind"]},
    "union": {"anyOf": [{"type": "integer"}, {"type": "null"}, PERSON]},
    "tagged": {
        "oneOf": [
            {"type": "object", "properties": {"t": {"const": "a"}, "x": {"type": "number"}},
             "required": ["t", "x"]},
            {"type": "object", "properties": {"t": {"const": "b"}, "y": {"type": "string"}},
             "required": ["t", "y"]},
        ],
        "discriminator": {"propertyName": "t"},
    },
    "types": {"type": ["string", "null", "integer"]},
    "nested": {"type": "object", "properties": {"a": {"type": "object", "properties": {
        "b": {"type": "object", "properties": {"c": {"type": "array", "items": {
            "type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3}}},
            "required": ["c"]}}, "required": ["b"]}}, "required": ["a"]},
    "map": {"type": "object", "additionalProperties": {"type": "number"}},
    "tuple": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}],
              "minItems": 2},
    "old tuple": {"type": "array", "items": [{"type": "string"}, {"type": "integer"}]},
    "pattern": {"type": "object", "properties": {
        "zip": {"type": "string", "pattern": r"^\d{5}(-\d{4})?$"},
        "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}}, "required": ["zip", "code"]},
    "far pattern": {"type": "string", "pattern": "^[^@]+@[^@.]+[.](com|org)$"},
    "date": {"type": "string", "format": "date-time"},
    "long text": {"type": "string", "minLength": 60, "maxLength": 90},
    "numbers": {"type": "object", "properties": {
        "a": {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
        "b": {"type": "integer", "multipleOf": 7, "minimum": 100},
        "c": {"type": "number"}}, "required": ["a", "b", "c"]},
    "optional": {"type": "object", "properties": {k: {"type": "boolean"} for k in "abcdefgh"}},
    "all of": {"allOf": [{"$ref": "#/definitions/A"}, {"type": "object", "properties": {
        "b": {"type": "integer"}}, "required": ["b"]}],
        "definitions": {"A": {"type": "object", "properties": {"a": {"type": "string"}},
                              "required": ["a"]}}},
    "either key": {"type": "object", "properties": {"a": {"type": "integer"},
                   "b": {"type": "integer"}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
    "keys by pattern": {"type": "object", "patternProperties": {"^x_": {"type": "integer"}},
                        "additionalProperties": False},
    "unicode keys": {"type": "object", "properties": {"名前": {"type": "string"},
                     "a b\"c": {"enum": ["ö"]}}, "required": ["名前", "a b\"c"]},
    "mutual": {"$ref": "#/$defs/A", "$defs": {
        "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B"}}},
        "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"]}}},
    "itself": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"},
               {"type": "null"}]}}, "required": ["next"]},
}  # fmt: skip


def validate(instance, schema):
    """Validate by the draft that the schema is written in."""
    old = schema is not None and isinstance(schema.get("items"), list)
    jsonschema.validate(
        instance,
        {"type": "object"} if schema is None else schema,
        cls=jsonschema.Draft7Validator if old else jsonschema.Draft202012Validator,
    )


def walks(tokenizer, schema, budget, seeds, pull=None):
    """Texts of random answers that the grammar calls complete."""
    grammar = compile_json(schema, tokenizer)
    for seed in seeds:
        strength = seed % 5 / 5 if pull is None else pull
        choose = wanderer(seed, grammar.words, '"}],', strength)
        tokens, state = write_answer(grammar, budget, choose)
        assert len(tokens) <= budget
        assert state.finished or len(tokens) == budget
        yield text_of(tokenizer, tokens)


@pytest.mark.parametrize("family", ["pocket", "hermes"])
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_random_answer_closes_and_validates(name, family):
    schema, tokenizer = SCHEMAS[name], family_tokenizer(family)
    needed = compile_json(schema, tokenizer).min_tokens
    for budget in (64, 90, 120, 200):
        if needed > budget:
            with pytest.raises(ConfigurationError, match=f"takes {needed} tokens"):
                compile_json(schema, tokenizer).begin(budget)
            continue
        for text in walks(tokenizer, schema, budget, range(10)):
            validate(json.loads(text), schema)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_least_budget_is_enough_and_one_less_is_refused(name):
    tokenizer = family_tokenizer("pocket")
    grammar = compile_json(SCHEMAS[name], tokenizer)
    for seed in range(4):
        tokens, _ = write_answer(grammar, grammar.min_tokens, wanderer(seed, grammar.words))
        instance = json.loads(text_of(tokenizer, tokens))
        validate(instance, SCHEMAS[name])
    with pytest.raises(IbllmError, match=f"set max_tokens to {grammar.min_tokens}"):
        grammar.begin(grammar.min_tokens - 1)


def test_answers_differ_and_use_optional_properties():
    tokenizer = family_tokenizer("pocket")
    found = [json.loads(t) for t in walks(tokenizer, PERSON, 120, range(60), pull=0.5)]
    keys = [frozenset(person) for person in found]
    assert len(set(keys)) >= 4
    assert any("married" not in person for person in found)
    assert any("tags" in person for person in found)
    for person in found:
        assert list(person) == [key for key in PERSON["properties"] if key in person]


def test_a_piece_tokenizer_writes_json_too():
    tokenizer = piece_tokenizer()
    for name in ("person", "nested", "enum", "numbers"):
        for text in walks(tokenizer, SCHEMAS[name], 200, range(4)):
            jsonschema.validate(json.loads(text), SCHEMAS[name])


@pytest.mark.parametrize("seed", range(6))
def test_random_schemas(seed):
    rng, tokenizer = random.Random(seed), family_tokenizer("hermes")
    for _ in range(6):
        schema = draw_schema(rng, 3)
        needed = compile_json(schema, tokenizer).min_tokens
        for text in walks(tokenizer, schema, needed + rng.randrange(80), range(4)):
            jsonschema.validate(json.loads(text), schema)


def draw_schema(rng, depth):
    kinds = ["string", "integer", "number", "boolean", "null", "enum"]
    kind = rng.choice(kinds + ["object", "object", "array", "any"] * (depth > 0))
    if kind == "object":
        names = rng.sample(
            ["id", "name", "title", "läge", "x y", "item", "values"], rng.randint(1, 4)
        )
        return {
            "type": "object",
            "properties": {name: draw_schema(rng, depth - 1) for name in names},
            "required": rng.sample(names, rng.randint(0, len(names))),
        }
    if kind == "array":
        low = rng.randint(0, 2)
        bounds = rng.choice([{}, {"minItems": low, "maxItems": low + rng.randint(0, 3)}])
        return {"type": "array", "items": draw_schema(rng, depth - 1), **bounds}
    if kind == "any":
        return {"anyOf": [draw_schema(rng, depth - 1) for _ in range(rng.randint(2, 3))]}
    if kind == "enum":
        return {"enum": rng.sample(["a", "ab", "long value", 1, 2.5, None, True, [1]], 3)}
    low = rng.randint(0, 9)
    extra = {
        "string": [{}, {"minLength": low}, {"maxLength": low}, {"pattern": "^[a-c]{2,4}x$"}],
        "integer": [{}, {"minimum": low}, {"minimum": -low, "maximum": low}],
        "number": [{}, {"exclusiveMinimum": low}],
    }
    return {"type": kind, **rng.choice(extra.get(kind, [{}]))}


@pytest.mark.parametrize(("schema", "keyword", "place"), [
    ({"not": {"type": "string"}}, "not", "#"),
    ({"properties": {"a": {"not": {}}}}, "not", "#/properties/a"),
    ({"type": "array", "items": {"type": "array", "uniqueItems": True}}, "uniqueItems",
     "#/items"),
    ({"if": {"type": "string"}, "then": {"maxLength": 2}}, "if", "#"),
    ({"type": "object", "propertyNames": {"pattern": "^a"}}, "propertyNames", "#"),
    ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired", "#"),
    ({"type": "array", "contains": {"type": "string"}}, "contains", "#"),
    ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties", "#"),
    ({"anyOf": [{"type": "null"}, {"type": "string", "pattern": "(?=a)b"}]}, "pattern",
     "#/anyOf/1"),
    ({"$ref": "#/$defs/A", "$defs": {"A": {"type": "string", "pattern": r"(a)\1"}}}, "pattern",
     "#/$defs/A"),
    ({"properties": {"u": {"type": "string", "format": "iri"}}}, "format", "#/properties/u"),
    ({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, "oneOf", "#"),
    ({"$ref": "https://example.org/schema"}, "$ref", "#"),
    ({"properties": {"a": {"$ref": "#/$defs/Missing"}}}, "$ref", "#/properties/a"),
    ({"type": "integer", "minimum": 5, "maximum": 3}, "minimum", "#"),
    ({"type": "string", "minLength": "3"}, "minLength", "#"),
    ({"type": "object", "properties": {"a": {}}, "maxProperties": 3}, "maxProperties", "#"),
    ({"type": "text"}, "type", "#"),
    ({"type": "object", "minProperties": 2}, "minProperties", "#"),
])  # fmt: skip
def test_what_cannot_be_enforced_is_named_with_its_place(schema, keyword, place):
    with pytest.raises(SchemaError) as caught:
        compile_json(schema, family_tokenizer("pocket"))
    message = str(caught.value)
    assert message.startswith(f"{place}: ")
    assert keyword in message


@pytest.mark.parametrize("schema", [
    {"$ref": "#/$defs/A", "$defs": {"A": {"type": "object", "required": ["a"], "properties": {
        "a": {"$ref": "#/$defs/A"}}}}},
    {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}},
    {"$ref": "#"},
    {"allOf": [{"$ref": "#"}, {"type": "object"}]},
    {"properties": 3},
    {"properties": {"a": 3}},
    {"type": "array", "items": "string"},
    {"anyOf": {"type": "string"}},
    {"enum": {1, 2}},
    {"type": "object", "properties": {"a": False}, "required": ["a"]},
    False,
    [],
    {"type": ["string", 3]},
    {"type": "object", "required": "a", "properties": {}},
    {"type": "string", "pattern": "a" * 200_000},
])  # fmt: skip
def test_hostile_schemas_are_schema_errors(schema):
    with pytest.raises(SchemaError):
        compile_json(schema, family_tokenizer("pocket"))


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "^.{500}$"},
        {"type": "string", "minLength": 3000},
        {"type": "string", "maxLength": 1_000_000},
        {"type": "string", "pattern": "^(a+)+$"},
        {"type": "array", "items": {"type": "integer"}, "minItems": 300},
        {"enum": [f"value number {i}" for i in range(2000)]},
        {
            "anyOf": [
                {
                    "properties": {"k": {"const": i}, f"v{i}": {"type": "integer"}},
                    "required": ["k", f"v{i}"],
                }
                for i in range(50)
            ]
        },
    ],
    ids=["exact", "long", "longer", "nested repeats", "many items", "many values", "many kinds"],
)
def test_extreme_schemas_close_too(schema):
    tokenizer = family_tokenizer("pocket")
    grammar = compile_json(schema, tokenizer)
    for seed in range(3):
        choose = wanderer(seed, grammar.words, '"}],', seed / 3)
        tokens, _ = write_answer(grammar, grammar.min_tokens + 30, choose)
        validate(json.loads(text_of(tokenizer, tokens)), schema)


def test_a_very_deep_schema_is_an_error_and_a_wide_one_is_fine():
    deep = {"type": "integer"}
    for _ in range(3000):
        deep = {"type": "array", "items": deep}
    with pytest.raises(SchemaError):
        compile_json(deep, family_tokenizer("pocket"))
    wide = {"type": "object", "properties": {f"k{i}": {"type": "string"} for i in range(200)}}
    for text in walks(family_tokenizer("pocket"), wide, 64, range(3)):
        jsonschema.validate(json.loads(text), wide)


@pytest.mark.parametrize(("schema", "valid", "invalid"), [
    ({"type": "string", "nullable": True}, ['"a"', "null"], ["1"]),
    ({"type": "integer", "nullable": False}, ["1"], ["null"]),
    ({"enum": ["a"], "nullable": True}, ['"a"', "null"], ['"b"']),
    ({"properties": {"a": {"$ref": "#/$defs/T", "nullable": True}},
      "$defs": {"T": {"type": "integer"}}}, ['{"a": 1}', '{"a": null}', "{}"],
     ['{"b": 1}', '{"a": "x"}', "3"]),
    ({"type": "number", "minimum": 3, "exclusiveMinimum": True}, ["4", "3.5"], ["3"]),
    ({"type": "object", "minProperties": 1}, ['{"a": 1}'], ["{}"]),
    ({"type": "object"}, ['{"free": [1, {"x": null}]}', "{}"], ["[]"]),
    ({"type": "object", "properties": {}}, ["{}"], ['{"a": 1}']),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": True},
     ['{"a": 1, "b": 2}'], ['{"a": "x"}']),
    ({"type": "object", "required": ["a"], "properties": {}}, ['{"a": 1}'], ["{}"]),
    ({"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": True},
     ['{"a": 1}'], ['{"a": "x"}']),
    ({"type": "string", "format": "password", "x-order": 3}, ['"a"'], ["1"]),
    ({"type": "array", "items": {"type": "integer"}, "uniqueItems": False}, ["[1, 1]"], ["[1,1]"]),
    ({"properties": {"a": {"$ref": "#/components/x~1y"}}, "components": {"x/y": {"const": 1}}},
     ['{"a": 1}'], ['{"a": 2}']),
    ({"type": "string"}, ['"\\n\\"\\\\ é 世界"', '""'], ['"\n"', "'a'"]),
    ({"type": "boolean", "default": True, "examples": [True], "deprecated": True}, ["true"],
     ["True"]),
    ({"allOf": [{"type": "string"}], "description": "Pydantic 1."}, ['"a"'], ["1"]),
])  # fmt: skip
def test_what_is_allowed(schema, valid, invalid):
    tokenizer = family_tokenizer("pocket")
    grammar = compile_json(schema, tokenizer)

    def fits(text):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return teacher_force(grammar, [*ids, tokenizer.eos_token_id]) is None

    assert [text for text in valid if not fits(text)] == []
    assert [text for text in invalid if fits(text)] == []


def test_numbers_and_strings_do_not_run_on():
    tokenizer = family_tokenizer("pocket")
    schema = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    for text in walks(tokenizer, schema, 120, range(6), pull=0):
        assert re.fullmatch(r'\{"x": -?\d{1,22}(\.\d{1,22})?([eE][+-]?\d{1,4})?\}', text)
        assert abs(json.loads(text)["x"]) < 1e200
    grammar = compile_json({"type": "string"}, tokenizer)
    letter = tokenizer.convert_tokens_to_ids("a")
    tokens, state = write_answer(
        grammar, 20_000, lambda allowed: letter if letter in allowed else allowed[0]
    )
    assert state.finished
    assert not state.forced
    assert 8_000 < len(tokens) < 9_000


def test_a_pattern_that_cannot_be_closed_from_everywhere_still_ends():
    tokenizer = family_tokenizer("pocket")
    schema = {"type": "string", "pattern": "^[^@]+@[^@.]+[.](com|org)$"}
    grammar = compile_json(schema, tokenizer)
    assert grammar.min_tokens < 12
    for seed in range(6):
        tokens, state = write_answer(grammar, 64, wanderer(seed, grammar.words))
        assert state.finished
        jsonschema.validate(json.loads(text_of(tokenizer, tokens)), schema)


def test_a_schema_is_compiled_once():
    tokenizer = family_tokenizer("pocket")
    grammar = compile_json(PERSON, tokenizer)
    assert compile_json(json.loads(json.dumps(PERSON)), tokenizer) is grammar
    backwards = {**PERSON, "properties": dict(reversed(PERSON["properties"].items()))}
    assert compile_json(backwards, tokenizer) is not grammar


def test_preparing_leaves_the_users_schema_alone():
    before = json.dumps(SCHEMAS)
    for schema in SCHEMAS.values():
        prepare_answer(schema)
    assert json.dumps(SCHEMAS) == before
