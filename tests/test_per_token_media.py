"""Each token of a row gets the medium that its turn was said with."""

import pytest
import torch
from test_model import JOINT, bare_llm, generate, with_senses

from ibllm_tools.errors import ConfigurationError

ROWS, MEDIA, TOKENS = 2, 3, 9
FORMS = [{}, {"n_queries": 3}, {"injection_form": "words"}]


@pytest.fixture
def ids():
    return torch.randint(3, 260, (ROWS, TOKENS), generator=torch.Generator().manual_seed(5))


@pytest.fixture
def features():
    return torch.randn(ROWS, MEDIA, JOINT, generator=torch.Generator().manual_seed(6))


INDEX = torch.tensor([[0] * 4 + [1] * 3 + [2] * 2, [1] * 2 + [1] * 2 + [0] * 5])
HAS_MEDIA = torch.tensor([[True, True, True], [True, False, True]])


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_one_medium_for_all_tokens_is_what_it_was(ids, features, form, late):
    model = with_senses(**form)
    for medium in range(MEDIA):
        index = torch.full((ROWS, TOKENS), medium)
        found = model(ids, features=features, media_index=index, late=late).logits
        expected = model(ids, features=features[:, medium], late=late).logits
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("form", FORMS, ids=str)
@torch.no_grad()
def test_the_tokens_up_to_a_change_of_medium_know_nothing_of_the_next(ids, features, form):
    model = with_senses(**form)
    found = model(ids, features=features, media_index=INDEX).logits
    first = model(ids, features=features[:, 0]).logits
    torch.testing.assert_close(found[0, :4], first[0, :4])
    assert (found[0, 4:] - first[0, 4:]).abs().amax(-1).min() > 1e-3
    second = model(ids, features=features[:, 1]).logits
    assert not torch.allclose(found[0, 4:7], second[0, 4:7])  # the past still has the first


@torch.no_grad()
def test_a_medium_that_is_not_there_gives_nothing(ids, features):
    model = with_senses()
    found = model(ids, features=features, has_media=HAS_MEDIA, media_index=INDEX).logits
    plain = bare_llm()(ids).logits
    torch.testing.assert_close(found[1, :4], plain[1, :4])
    assert not torch.allclose(found[1, 4:], plain[1, 4:])
    none = torch.zeros_like(HAS_MEDIA)
    assert torch.equal(
        model(ids, features=features, has_media=none, media_index=INDEX).logits, plain
    )


@pytest.mark.parametrize("late", [False, True])
def test_only_media_that_a_token_gets_are_trained(ids, features, late):
    model = with_senses()
    features = features.requires_grad_()
    out = model(ids, features=features, media_index=INDEX, late=late, labels=ids)
    out.loss.backward()
    reached = features.grad.abs().sum(-1) > 0
    assert reached.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_an_answer_goes_on_with_the_last_medium(ids, features, form):
    model = with_senses(**form)
    options = {"features": features, "has_media": HAS_MEDIA, "media_index": INDEX}
    cached = generate(model, ids, **options)
    assert torch.equal(cached, generate(model, ids, use_cache=False, **options))
    whole = torch.cat([INDEX, INDEX[:, -1:].expand(-1, 7)], 1)
    with torch.no_grad():
        scores = model(cached[:, :-1], **{**options, "media_index": whole}).logits
    assert torch.equal(scores[:, TOKENS - 1 :].argmax(-1), cached[:, TOKENS:])
    beams = generate(model, ids, num_beams=2, num_return_sequences=2, **options)
    assert beams.shape[0] == 2 * ROWS


@torch.no_grad()
def test_shapes_that_do_not_belong_together_are_refused(ids, features):
    model = with_senses()
    with pytest.raises(ConfigurationError, match="media_index"):
        model(ids, features=features[:, 0], media_index=INDEX)
    with pytest.raises(ConfigurationError, match="4 tokens and 9 entries"):
        model(ids[:, :4], features=features, media_index=INDEX)
    with pytest.raises(ConfigurationError, match="pass both"):
        model(ids, media_index=INDEX)
