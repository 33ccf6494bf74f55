"""The main job from case to verdict, and what must hold of it whatever the numbers."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

from encircle.attacks import IMF
from encircle.audit import Audit, run_audit
from encircle.audit.case_file import own_settings
from encircle.audit.rehearsal import rehearse
from encircle.core import InputError, StorageError
from encircle.explain import Cam, Grad
from encircle.goals import Away, Features, FromFile, Region
from encircle.models import TwoLayerNet
from encircle.report import render
from encircle.storage import read_arrays
from encircle.threat import Budget, Column
from encircle.training import Recipe

from .tiny_cases import TINY, TINY_IMAGES, case_of, scores_of

ARMS = ["clean", "base", "noise", "watermark", "watermark-projected", "imf"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_audit(Audit.from_case(case_of(TINY)), tmp_path_factory.mktemp("runs")).folder


def test_every_arm_target_and_seed_is_scored_once(finished: Path) -> None:
    scores = scores_of(finished)
    targets = scores["target"].unique()
    assert len(targets) == 2
    for arm in ARMS:
        seeds = [0, 1, 2, 3] if arm == "clean" else [0, 1]
        for target in targets:
            found = scores.filter((pl.col("arm") == arm) & (pl.col("target") == target))["seed"].to_list()
            assert found == seeds


def test_a_ceiling_is_scored_beside_the_arms_and_changes_none_of_them(finished: Path, tmp_path: Path) -> None:
    case = case_of({**TINY, "ceiling": {"epochs": 4}})
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    scores, alone = scores_of(folder), scores_of(finished)
    assert scores.filter(pl.col("arm") != "ceiling").equals(alone)
    ceiling, clean = (scores.filter((pl.col("arm") == arm) & (pl.col("seed") < 2)) for arm in ("ceiling", "clean"))
    assert ceiling["target"].to_list() == clean["target"].to_list()
    assert (ceiling["jaccard"] >= clean["jaccard"]).all()  # the clean model is among the attempts
    assert ceiling["jaccard"].mean() > clean["jaccard"].mean()
    assert ceiling["label_kept"].all()
    assert (ceiling["accuracy"] >= clean["accuracy"] - 0.01).all()
    assert set(pl.read_parquet(folder / "poisons.parquet")["arm"]) == set(ARMS) - {"clean"}
    summary = json.loads((folder / "verdict.json").read_text())
    assert [arm["arm"] for arm in summary["arms"]] == [*ARMS, "ceiling"]
    assert summary["share_of_way"]["low"] is None  # two targets claim nothing
    page = render([folder], tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Ceiling (no poison)" in page
    assert "of the ceiling’s, which is what bending the model itself reaches" in page


def test_the_targets_are_right_on_every_clean_victim(finished: Path) -> None:
    clean = scores_of(finished).filter((pl.col("arm") == "clean") & (pl.col("seed") < 2))
    assert clean["label_kept"].all()


def test_poison_is_within_its_budget_in_the_files(finished: Path) -> None:
    poisons = pl.read_parquet(finished / "poisons.parquet").filter(pl.col("bounded"))
    assert set(poisons["arm"]) == set(ARMS) - {"clean", "watermark"}
    assert poisons["linf"].max() <= 0.1 + 1e-6
    assert (poisons["count"] == int(0.05 * 256)).all()


def test_scored_maps_give_the_scores(finished: Path) -> None:
    maps, _ = read_arrays(finished / "maps.safetensors")
    for row in scores_of(finished).iter_rows(named=True):
        found, goal = maps[f"{row['target']}/{row['arm']}/{row['seed']}"], maps[f"{row['target']}/goal"]
        scaled = (found - found.min()) / (found.max() - found.min())
        assert row["l1"] == pytest.approx(float(np.abs(scaled - goal).mean()), abs=1e-6)
        high = scaled >= 0.5
        assert row["jaccard"] == pytest.approx((high & (goal == 1)).sum() / (high | (goal == 1)).sum())


def test_the_history_has_every_iteration_of_every_member(finished: Path) -> None:
    history = pl.read_parquet(finished / "history.parquet")
    per_target = history.group_by("target").agg(pl.len(), pl.col("iteration").n_unique(), pl.col("member").n_unique())
    assert (per_target["len"] == per_target["iteration"] * per_target["member"]).all()
    assert (per_target["member"] == 2).all()
    assert history["form_cosine"].drop_nulls().is_between(-1.0001, 1.0001).all()


def test_two_targets_are_a_demonstration_without_intervals(finished: Path) -> None:
    verdict = json.loads((finished / "verdict.json").read_text())
    assert verdict["demonstration"]
    assert verdict["verdict"] == "WARN"
    assert all(arm[key]["low"] is None for arm in verdict["arms"] for key in ("jaccard", "jaccard_change", "l1"))


def test_the_parts_are_gone_when_the_run_is_finished(finished: Path) -> None:
    assert not (finished / "parts").exists()
    assert not list(finished.rglob(".partial-*"))


def test_a_finished_run_is_not_done_again(finished: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}
    run_audit(Audit.from_case(case_of(TINY)), finished.parent)
    assert before == {path: path.stat().st_mtime_ns for path in before}


def test_the_same_seed_gives_the_same_scores_and_another_seed_others(finished: Path, tmp_path: Path) -> None:
    again = run_audit(Audit.from_case(case_of(TINY)), tmp_path).folder
    assert scores_of(again).equals(scores_of(finished), null_equal=True)
    other = run_audit(Audit.from_case(case_of(TINY, seed=8)), tmp_path).folder
    assert not scores_of(other)["l1"].equals(scores_of(finished)["l1"])


def test_images_with_frozen_stages(tmp_path: Path) -> None:
    folder = run_audit(Audit.from_case(case_of(TINY_IMAGES)), tmp_path).folder
    assert set(scores_of(folder)["arm"]) == set(ARMS)
    maps, _ = read_arrays(folder / "maps.safetensors")
    target = scores_of(folder)["target"][0]
    assert maps[f"{target}/imf/0"].shape == (4, 4)
    assert maps[f"{target}/imf/0/full"].shape == (16, 16)
    pictures = list((folder / "poison" / str(target) / "imf").glob("*.png"))
    assert len(pictures) == pl.read_parquet(folder / "poisons.parquet").filter(pl.col("arm") == "imf")["count"][0]
    assert render([folder], tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("content", [TINY, TINY_IMAGES], ids=["table", "images"])
@pytest.mark.parametrize("members", ["loop", "vectorised"])
def test_a_budget_of_nothing_equals_the_clean_run_bit_for_bit(
    content: dict[str, object], members: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An audit refuses to judge nothing; what it does must be nothing all the same.
    monkeypatch.setattr("encircle.audit.checks._check_budget", lambda audit: None)
    case = case_of(content, budget={"fraction": 0.0}, code_path={"members": members})
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    scores = scores_of(folder)
    clean = scores.filter((pl.col("arm") == "clean") & (pl.col("seed") < case_of(content).victims)).drop("arm")
    maps, _ = read_arrays(folder / "maps.safetensors")
    for arm in ARMS[1:]:
        mine = scores.filter(pl.col("arm") == arm).drop("arm")
        assert mine.drop("drift").equals(clean.drop("drift"), null_equal=True)
        assert mine["drift"].abs().max() < 1e-12  # one minus a cosine of 1, computed rather than assumed
        for target, seed in clean.select("target", "seed").iter_rows():
            assert maps[f"{target}/{arm}/{seed}"].tobytes() == maps[f"{target}/clean/{seed}"].tobytes()


def test_a_zero_budget_trains_for_itself_and_still_equals_clean(tmp_path: Path) -> None:
    # Without the shortcut that reuses the clean victims: an empty poison must not disturb training in any way.
    from encircle.data import breast_cancer
    from encircle.models import TwoLayerNet
    from encircle.training import Source, fit

    data = breast_cancer(seed=1)
    empty = data.train.batch(torch.tensor([0]))[:0]
    none = torch.zeros(0, dtype=torch.int64)
    source, recipe = Source(lambda: TwoLayerNet(30, 2)), Recipe(epochs=2)
    clean = fit(source, recipe, data.train, "victim", 3).state_dict()
    poisoned = fit(source, recipe, data.train.with_poison(empty, none, none), "victim", 3).state_dict()
    assert all(torch.equal(clean[name], poisoned[name]) for name in clean)


def test_replace_mode_overwrites_and_does_not_grow_the_set(tmp_path: Path) -> None:
    case = case_of(TINY, budget={"fraction": 0.05, "mode": "replace"})
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    for manifest in folder.glob("poison/*/imf/manifest.json"):
        content = json.loads(manifest.read_text())
        from_train = [row for row in content["bases"] if row >= 0]
        assert [row for row in content["overwritten"] if row >= 0] == from_train
        assert len(set(from_train)) == len(from_train)


class Squares(Dataset[tuple[torch.Tensor, int]]):
    """A user's own data: bright squares in one of two places."""

    def __init__(self, count: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        self.pictures = 0.3 * torch.rand(count, 3, 12, 12, generator=random)
        for picture, label in zip(self.pictures, self.labels, strict=True):
            picture[:, 2:6, 2 + 6 * int(label) : 5 + 6 * int(label)] += 0.6

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.pictures[row], int(self.labels[row])


def own_network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softplus(), nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2))


SETTINGS = {"recipe": Recipe(epochs=3, lr=0.1), "budget": Budget(count=4), "targets": 1, "victims": 1, "references": 1}


def own_audit(**changes: object) -> Audit:
    settings = {
        "explainer": Grad(grid=(4, 4)),
        "goal": Region("top"),
        "classes": ["left", "right"],
        **SETTINGS,
        **changes,
    }
    return Audit.of(own_network, Squares(64, 0), Squares(20, 1), **settings)  # type: ignore[arg-type]


def test_an_own_network_and_data_set(tmp_path: Path) -> None:
    judgement = run_audit(own_audit(), tmp_path)
    assert judgement.verdict == "WARN"
    assert (judgement.folder / "verdict.json").is_file()
    assert len(list(judgement.folder.glob("poison/*/influence/*.png"))) == 4


def test_an_own_network_without_cam_head_is_refused_cam(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no CAM head"):
        run_audit(own_audit(explainer=Cam()), tmp_path)


def test_units_need_a_shared_start() -> None:
    with pytest.raises(InputError, match="do not correspond"):
        Audit.from_case(case_of(TINY, explainer={"kind": "cam"}, goal={"kind": "units", "count": 2}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"explainer": {"kind": "cam"}, "goal": {"kind": "units", "count": 2}}, "do not correspond"),
        ({"code_path": {"members": "vectorised"}}, "cannot be computed at once"),
    ],
)
def test_several_starts_share_neither_units_nor_frozen_stages(changes: dict[str, Any], words: str) -> None:
    start = {"recipe": {**TINY["recipe"], "start": "checkpoint", "starts": 2}, "pretraining": {"epochs": 1}}
    with pytest.raises(InputError, match=words):
        Audit.from_case(case_of(TINY, **start, **changes))


def test_a_checkpoint_is_but_one_start() -> None:
    own = own_audit()
    shared = {name: getattr(own.settings, name) for name in ("explainer", "goal", "budget")}
    settings = own_settings({"recipe": Recipe(start="checkpoint", starts=2), **shared})
    with pytest.raises(InputError, match="several starts are learnt by a pretraining recipe"):
        Audit(own.build, own.data, settings, checkpoint=dict(own.fresh().state_dict()))


def test_a_target_that_the_clean_model_gets_wrong_is_refused(tmp_path: Path) -> None:
    for row in range(29):
        try:
            run_audit(Audit.from_case(case_of(TINY, targets=[row], victims=1, attack={"kind": "watermark"})), tmp_path)
        except InputError as error:
            assert "gets the class of target" in str(error)
            return
    pytest.fail("every target was classified correctly; the case is too easy for this test")


def test_a_target_outside_the_test_set_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a row of the test set"):
        run_audit(Audit.from_case(case_of(TINY, targets=[1000])), tmp_path)


def test_changed_poison_is_noticed(tmp_path: Path) -> None:
    case = case_of(TINY)
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    (folder / "verdict.json").unlink()
    file = next(folder.glob("poison/*/base/poison.parquet"))
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(StorageError, match="was changed"):
        run_audit(Audit.from_case(case), tmp_path)


def test_a_folder_of_another_case_is_refused(finished: Path, tmp_path: Path) -> None:
    case = case_of(TINY, seed=9)
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    (folder / "case.yaml").write_text((finished / "case.yaml").read_text())
    with pytest.raises(InputError, match="another case"):
        run_audit(Audit.from_case(case), tmp_path)


def test_names_with_markup_are_escaped_in_the_report(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>"
    audit = own_audit(classes=[evil, "right"], title=evil, name=evil)
    folder = run_audit(audit, tmp_path).folder
    page = render([folder], tmp_path / "report.html", title=evil).read_text()
    assert evil not in page
    assert "&lt;script&gt;alert(1)" in page


def test_features_by_name_reach_the_goal(tmp_path: Path) -> None:
    case = case_of(TINY, goal={"kind": "features", "names": ["mean radius", "worst area"]}, targets=1, victims=1)
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    maps, _ = read_arrays(folder / "maps.safetensors")
    goal = next(value for name, value in maps.items() if name.endswith("/goal"))
    assert goal.nonzero()[0].tolist() == [0, 23]


def test_nothing_is_nan_in_the_summary_file(finished: Path) -> None:
    assert "NaN" not in (finished / "verdict.json").read_text()
    assert not any(math.isinf(value) for value in scores_of(finished)["l1"])


def test_a_wrong_feature_name_offers_the_right_one(tmp_path: Path) -> None:
    case = case_of(TINY, goal={"kind": "features", "names": ["mean radios"]})
    with pytest.raises(InputError, match="did you mean 'mean radius'"):
        run_audit(Audit.from_case(case), tmp_path)


class Broken(Squares):
    """An own data set of which one file does not decode."""

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        if row == 5:
            raise OSError("cannot identify image file")
        return super().__getitem__(row)


def test_an_image_that_does_not_decode() -> None:
    with pytest.raises(InputError, match=r"item 5 of your data set cannot be read \(cannot identify image file\)"):
        Audit.of(
            own_network, Broken(64, 0), Squares(20, 1), explainer=Grad(), goal=Region(), classes=["a", "b"], **SETTINGS
        )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (float("nan"), "row 3 holds NaN or infinity"),
        (float("inf"), "row 3 holds NaN or infinity"),
        (1.5, "leaves [0, 1]"),
    ],
)
def test_features_that_are_not_finite_or_out_of_range(value: float, sentence: str, tmp_path: Path) -> None:
    audit = own_audit()
    audit.data.train.dataset.pictures[3, 0, 0, 0] = value  # type: ignore[attr-defined]
    with pytest.raises(InputError) as caught:
        run_audit(audit, tmp_path)
    assert sentence in str(caught.value)


def test_labels_out_of_range(tmp_path: Path) -> None:
    audit = own_audit()
    audit.data.train.labels[7] = 2
    with pytest.raises(InputError, match=r"row 7: label 2 is not in 0\.\.1"):
        run_audit(audit, tmp_path)


class Records(Dataset[tuple[torch.Tensor, int]]):
    """A user's own table with a column of each kind."""

    def __init__(self, count: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.rows = torch.rand(count, 5, generator=random)
        self.rows[:, 1] = (self.rows[:, 1] * 10).round() / 10
        self.rows[:, 2] = (self.rows[:, 2] > 0.5).float()
        self.labels = (self.rows[:, 0] + self.rows[:, 3] > 1).long()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
        return self.rows[row], int(self.labels[row])


def test_an_own_table_keeps_its_columns_legal(tmp_path: Path) -> None:
    columns = {
        "steps": Column("integer", step=0.1),
        "yes": Column("categorical", values=(0.0, 1.0)),
        "fixed": Column("immutable"),
    }
    names = ["a", "steps", "yes", "b", "fixed"]
    settings = {**SETTINGS, "budget": Budget(count=10, epsilon=0.25)}
    audit = Audit.of(
        lambda: TwoLayerNet(5, 2, hidden=16),
        Records(200, 0),
        Records(40, 1),
        classes=["no", "yes"],
        features=names,
        columns=columns,
        explainer=Grad(),
        goal=Features(("b",)),
        attack=IMF(models=2, epochs=2),
        **settings,  # type: ignore[arg-type]
    )
    folder = run_audit(audit, tmp_path).folder
    for file in folder.glob("poison/*/imf/poison.parquet"):
        frame = pl.read_parquet(file)
        assert set(frame["yes"].to_list()) <= {0.0, 1.0}
        assert ((frame["steps"] * 10).round() - frame["steps"] * 10).abs().max() < 1e-4
    with pytest.raises(InputError, match="did you mean 'steps'"):
        Audit.of(
            own_network,
            Records(20, 0),
            Records(8, 1),
            classes=["no", "yes"],
            features=names,
            columns={"step": Column("immutable")},
            explainer=Grad(),
            goal=Features(("b",)),
            **SETTINGS,  # type: ignore[arg-type]
        )


def test_files_that_a_case_names_are_part_of_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "map.npy"
    folders = []
    for place in range(2):
        wanted = np.zeros((4, 4))
        wanted[place] = 1
        np.save(path, wanted)
        folders.append(run_audit(own_audit(goal=FromFile(path)), tmp_path / "runs").folder)
    assert folders[0] != folders[1]


def test_starting_weights_are_part_of_its_identity(tmp_path: Path) -> None:
    def audit(seed: int) -> Audit:
        torch.manual_seed(seed)
        return own_audit(checkpoint=own_network().state_dict(), recipe=Recipe(start="checkpoint", epochs=3, lr=0.1))

    one, other = (run_audit(audit(seed), tmp_path).folder for seed in (1, 2))
    assert one != other
    assert not scores_of(one)["l1"].equals(scores_of(other)["l1"])


def body(activation: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), activation, nn.AdaptiveAvgPool2d(3), nn.Flatten(), nn.Linear(36, 2))


class Halved(nn.Module):
    """The own network, but its code halves the logits: same parameters, same text."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.inner = own_network()
        self.hidden_factor = factor

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.hidden_factor * self.inner(inputs)


@pytest.mark.parametrize("features", [["label", "b", "c", "d", "e"], ["a", "a", "c", "d", "e"], ["encircle", *"bcde"]])
def test_columns_that_cannot_be_exported_are_refused_before_anything_is_trained(features: list[str]) -> None:
    settings = {"explainer": Grad(), "goal": Features(("c",)), "classes": ["no", "yes"], **SETTINGS}
    with pytest.raises(InputError, match="give each column a name of its own"):
        Audit.of(lambda: TwoLayerNet(5, 2), Records(50, 0), Records(9, 1), features=features, **settings)  # type: ignore[arg-type]


def test_away_needs_the_box_of_every_row_that_may_be_drawn() -> None:
    settings = {"explainer": Grad(grid=(4, 4)), "goal": Away(), "classes": ["a", "b"], **SETTINGS}
    audit = Audit.of(lambda: body(nn.ReLU()), Squares(64, 0), Squares(20, 1), **settings)  # type: ignore[arg-type]
    boxes = dict.fromkeys(range(20), (0.0, 0.0, 0.5, 0.5))
    audit.data = dataclasses.replace(audit.data, boxes=boxes)
    rehearse(audit)
    audit.data = dataclasses.replace(audit.data, boxes={row: box for row, box in boxes.items() if row != 19})
    with pytest.raises(InputError, match="lacks that of 1, row 19 among them"):
        rehearse(audit)


class Dropping(nn.Module):
    """Differs from another only while it learns."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.inner, self.hidden_rate = body(nn.ReLU()), rate

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(nn.functional.dropout(inputs, self.hidden_rate, self.training))


class Steep(nn.Module):
    """Differs from another only in what it hands back to its inputs."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.inner, self.hidden_slope = body(nn.ReLU()), slope

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.inner(inputs.detach() + self.hidden_slope * (inputs - inputs.detach()) + 0.01)


def test_networks_that_differ_only_in_code_are_different_audits() -> None:
    def digest_of(build: Callable[[], nn.Module]) -> str:
        settings = {"explainer": Grad(grid=(4, 4)), "goal": Region("top"), "classes": ["a", "b"], **SETTINGS}
        return Audit.of(build, Squares(64, 0), Squares(20, 1), **settings).digests["network"]  # type: ignore[arg-type]

    def frozen() -> nn.Module:
        network = body(nn.ReLU())
        next(network.parameters()).requires_grad_(False)
        return network

    found = [lambda: body(nn.ReLU()), lambda: body(nn.Tanh()), lambda: Halved(1.0), lambda: Halved(0.5), frozen]
    found += [lambda: Dropping(0.1), lambda: Dropping(0.8), lambda: Steep(1.0), lambda: Steep(2.0)]
    assert len({digest_of(build) for build in found}) == len(found)
    assert digest_of(found[0]) == digest_of(found[0])


def test_what_is_known_of_a_table_is_part_of_its_identity() -> None:
    def digest_of(**known: object) -> str:
        settings = {"explainer": Grad(), "goal": Features(("a",)), "classes": ["no", "yes"], **SETTINGS, **known}
        return Audit.of(lambda: TwoLayerNet(5, 2), Records(50, 0), Records(9, 1), **settings).digests["data"]  # type: ignore[arg-type]

    one = digest_of(features=list("abcde"))
    assert one != digest_of(features=list("bacde"))
    assert one != digest_of(features=list("abcde"), columns={"a": Column("immutable")})


def test_layers_that_draw_random_numbers_do_not_disturb_reproducibility(tmp_path: Path) -> None:
    def build() -> nn.Module:
        return nn.Sequential(*own_network(), nn.Dropout(0.5))

    folders = []
    for place in range(2):
        torch.manual_seed(place)  # whatever the caller did before
        audit = Audit.of(
            build,
            Squares(64, 0),
            Squares(20, 1),
            explainer=Grad(grid=(4, 4)),
            goal=Region("top"),
            classes=["a", "b"],
            **SETTINGS,  # type: ignore[arg-type]
        )
        before = torch.get_rng_state()
        folders.append(run_audit(audit, tmp_path / str(place)).folder)
        assert torch.equal(before, torch.get_rng_state()), "the caller's random numbers are left alone"
    assert scores_of(folders[0]).equals(scores_of(folders[1]), null_equal=True)


@pytest.mark.parametrize("fraction", [0.5, 0.95])
def test_mini_batches_of_nothing_but_poison(fraction: float, tmp_path: Path) -> None:
    settings = {"recipe": Recipe(epochs=1, lr=0.05, batch_size=2), "budget": Budget(fraction=fraction)}
    assert run_audit(own_audit(attack=IMF(models=1, epochs=1), **settings), tmp_path).verdict == "WARN"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"targets": 0}, "targets must be at least 1"),
        ({"targets": []}, "targets must be at least 1"),
        ({"targets": 21}, "21 targets are more than the 20 test samples"),
        ({"title": 5}, "title: input should be a valid string (given: 5)"),
        ({"victims": 0}, "victims: input should be greater than or equal to 1 (given: 0)"),
        ({"references": 0}, "references: input should be greater than or equal to 1 (given: 0)"),
        ({"checkpoint": own_network().state_dict()}, "start='scratch' neither"),
        ({"recipe": Recipe(start="checkpoint")}, "needs either pretraining or a checkpoint"),
        ({"checkpoint": "nowhere.safetensors", "recipe": Recipe(start="checkpoint")}, "do not exist"),
        ({"classes": ["only one"]}, "with one class there is nothing to classify"),
        ({"classes": ["a", "b", "c"]}, "it must give logits (n, classes)"),
        ({"explainer": Cam()}, "no CAM head"),
        (
            {"recipe": Recipe(start="checkpoint", frozen_stages=1), "checkpoint": own_network().state_dict()},
            "needs a model with stages",
        ),
        ({"budget": Budget(count=64)}, "not below the 64 clean samples"),
        ({"budget": Budget(count=4, norm="l2", epsilon=0.05)}, "nothing would be left of the poison"),
        ({"budget": Budget(count=0)}, "a budget of 0 samples leaves nothing to judge"),
        ({"budget": Budget(fraction=0.015)}, "a budget of 0.015 of 64 training samples comes to none"),
    ],
)
def test_settings_that_make_no_sense_are_refused_at_once(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        own_audit(**changes)
    assert sentence in str(caught.value)


def test_a_network_that_does_not_fit_the_data_is_refused_at_once() -> None:
    for build in (lambda: own_network().double(), lambda: nn.Linear(7, 2)):
        with pytest.raises(InputError, match="the network fails for"):
            Audit.of(
                build, Squares(64, 0), Squares(20, 1), explainer=Grad(), goal=Region(), classes=["a", "b"], **SETTINGS
            )  # type: ignore[arg-type]


def test_a_goal_that_does_not_fit_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="use region or box"):
        run_audit(own_audit(goal=Features(("a",))), tmp_path)
    assert not list(tmp_path.iterdir())


def test_targets_are_right_on_the_clean_victims_of_the_null_too(finished: Path) -> None:
    assert scores_of(finished).filter(pl.col("arm") == "clean")["label_kept"].all()


def test_drift_of_the_null_compares_two_clean_victims(finished: Path) -> None:
    clean = scores_of(finished).filter(pl.col("arm") == "clean")
    assert clean.filter(pl.col("seed") < 2)["drift"].abs().max() < 1e-12  # type: ignore[operator]
    assert clean.filter(pl.col("seed") >= 2)["drift"].min() > 1e-6  # type: ignore[operator]


def test_history_is_made_again_when_it_is_gone(tmp_path: Path) -> None:
    case = case_of(TINY)
    folder = run_audit(Audit.from_case(case), tmp_path).folder
    before = pl.read_parquet(folder / "history.parquet")
    (folder / "verdict.json").unlink()
    run_audit(Audit.from_case(case), tmp_path)
    assert pl.read_parquet(folder / "history.parquet").equals(before, null_equal=True)
    assert len(before)


def test_poison_that_is_not_legal_is_not_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # An attack within its ball, but with a column moved that may not move: as if projection had forgotten it.
    settings = {**SETTINGS, "budget": Budget(count=10, epsilon=0.25)}
    audit = Audit.of(
        lambda: TwoLayerNet(5, 2, hidden=16),
        Records(200, 0),
        Records(40, 1),
        classes=["no", "yes"],
        features=["a", "steps", "yes", "b", "fixed"],
        columns={"fixed": Column("immutable")},
        explainer=Grad(),
        goal=Features(("b",)),
        attack=IMF(models=1, epochs=1),
        **settings,  # type: ignore[arg-type]
    )
    monkeypatch.setattr(Budget, "project", lambda self, samples, base, legal: (base + 0.2).clamp(0, 1))
    with pytest.raises(StorageError, match="not legal"):
        run_audit(audit, tmp_path)
