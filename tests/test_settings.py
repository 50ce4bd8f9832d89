import copy
import pickle

import attrs
import pytest
import torch

from rewright.errors import SettingsError
from rewright.settings import Options, Settings


def test_defaults():
    settings = Settings()
    assert settings.torch_backend == "eager"
    assert settings.device is None
    assert settings.target == "auto"
    assert settings.on_error == "eager"
    assert settings.inductor_options == {}


def test_settings_are_frozen_hashable_and_picklable():
    settings = Settings(torch_backend="inductor", inductor_options={"max_autotune": True})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        settings.target = "cpu"
    with pytest.raises(TypeError):
        settings.inductor_options["max_autotune"] = False
    for again in (pickle.loads(pickle.dumps(settings)), copy.deepcopy(settings)):
        assert again == settings
        assert hash(again) == hash(settings)
    assert settings != Settings()


@pytest.mark.parametrize("field", ["torch_backend", "target", "on_error"])
@pytest.mark.parametrize("value", ["inductr", "", None, True, 1, ["eager"]])
def test_an_illegal_choice_names_the_field_and_the_legal_values(field, value):
    legal = {row.name: row.legal for row in Settings.describe()}[field]
    with pytest.raises(SettingsError) as caught:
        Settings(**{field: value})
    assert caught.value.setting == field
    assert repr(value) in caught.value.message
    assert caught.value.hint == f"legal values: {legal}"


@pytest.mark.parametrize(
    ("device", "canonical"),
    [
        (None, None),
        ("cpu", "cpu"),
        ("cuda", "cuda"),
        (torch.device("cuda", 1), "cuda:1"),
        (torch.device("cpu"), "cpu"),
    ],
)
def test_a_device_is_kept_in_canonical_form(device, canonical):
    assert Settings(device=device).device == canonical


@pytest.mark.parametrize("device", ["gpu", "cuda:", "cuda:x", "meta", 0, "cuda:1\n"])
def test_an_illegal_device_is_refused(device):
    with pytest.raises(SettingsError, match="'device'"):
        Settings(device=device)


def test_a_target_that_contradicts_the_device_is_refused():
    with pytest.raises(SettingsError, match="target is 'cpu', but device is 'cuda:1'"):
        Settings(target="cpu", device="cuda:1")
    assert Settings(target="cuda", device="cuda:1").device == "cuda:1"


def test_inductor_options_without_inductor_are_refused_not_ignored():
    with pytest.raises(SettingsError, match="torch_backend is 'eager'") as caught:
        Settings(inductor_options={"max_autotune": True})
    assert caught.value.setting == "inductor_options"


def test_an_unknown_inductor_option_is_refused_with_the_nearest_one():
    with pytest.raises(SettingsError, match="max_autotone") as caught:
        Settings(torch_backend="inductor", inductor_options={"max_autotone": True})
    assert caught.value.hint == "did you mean 'max_autotune'?"


@pytest.mark.parametrize("options", [[("max_autotune", True)], "max_autotune", 1, None])
def test_inductor_options_must_be_a_mapping(options):
    with pytest.raises(SettingsError, match="'inductor_options'"):
        Settings(torch_backend="inductor", inductor_options=options)


def test_inductor_options_must_be_plain_values():
    with pytest.raises(SettingsError, match="max_autotune"):
        Settings(torch_backend="inductor", inductor_options={"max_autotune": [True]})


def test_options_do_not_follow_the_mapping_they_were_made_from():
    given = {"max_autotune": True}
    settings = Settings(torch_backend="inductor", inductor_options=given)
    given["max_autotune"] = False
    assert settings.inductor_options == {"max_autotune": True}


def test_options_do_not_depend_on_order():
    one, other = Options({"a": 1, "b": 2}), Options({"b": 2, "a": 1})
    assert one == other
    assert hash(one) == hash(other)
    assert repr(one) == repr(other) == "{'a': 1, 'b': 2}"


def test_evolve_checks_again():
    assert attrs.evolve(Settings(), target="cpu").target == "cpu"
    with pytest.raises(SettingsError):
        attrs.evolve(Settings(), target="gpu")


def test_from_options():
    assert Settings.from_options({}) == Settings()
    assert Settings.from_options({"on_error": "raise"}) == Settings(on_error="raise")


def test_from_options_refuses_an_unknown_name_with_the_nearest_one():
    with pytest.raises(SettingsError, match="'torch_backnd'") as caught:
        Settings.from_options({"on_error": "raise", "torch_backnd": "eager"})
    assert caught.value.setting == "torch_backnd"
    assert caught.value.hint == "did you mean 'torch_backend'?"


@pytest.mark.parametrize(
    ("name", "hint"), [("mode", "torch_backend='inductor'"), ("options", r"\*\*options")]
)
def test_what_only_torch_compile_takes_is_no_setting(name, hint):
    with pytest.raises(SettingsError, match=f"(?s)no setting '{name}'.*{hint}"):
        Settings.from_options({name: "reduce-overhead"})


def test_from_mode_stands_for_what_torch_says():
    theirs = torch._inductor.list_mode_options()
    for mode in ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"):
        settings, options = Settings.from_mode(mode), dict(theirs[mode])
        captures = options.pop("triton.cudagraphs", False)  # ours capture the whole program
        assert settings.inductor_options == options, mode
        assert settings.cuda_graphs == ("auto" if captures else "off"), mode


def test_only_the_default_mode_leaves_inductor_out():
    assert Settings.from_mode("default") == Settings()
    assert Settings.from_mode("reduce-overhead").torch_backend == "inductor"


def test_from_mode_refuses_an_unknown_mode():
    with pytest.raises(SettingsError, match="'max-autotun'") as caught:
        Settings.from_mode("max-autotun")
    assert caught.value.hint == "did you mean 'max-autotune'?"


def test_describe_has_a_full_row_for_every_field():
    rows = Settings.describe()
    assert [row.name for row in rows] == [field.name for field in attrs.fields(Settings)]
    for row in rows:
        assert row.default == repr(getattr(Settings(), row.name))
        assert row.legal
        assert row.doc.endswith(".")


def test_settings_import_no_torch(fresh_python):
    code = (
        "import sys; from rewright.settings import Settings;"
        "Settings(device='cuda'); print('torch' in sys.modules)"
    )
    assert fresh_python(code) == "False"
