"""Desired maps: regions in numbers, every kind of goal, and what cannot be a goal."""

from __future__ import annotations

import io
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor

from encircle.core import InputError
from encircle.goals import (
    QUARTERS,
    REGIONS,
    Away,
    Box,
    DesiredMap,
    DrawnRegion,
    Features,
    FromFile,
    Goal,
    GoalContext,
    Like,
    OfClass,
    Region,
    Units,
    cells,
)


def explain(sample: Tensor, label: int) -> Tensor:
    """A stand-in: the sample's first channel (or its columns), plus the class."""
    assert len(sample) == 1
    return (sample[0, 0] if sample.dim() == 4 else sample[0]) + label


def context(shape: tuple[int, ...] = (4, 4), **changes: Any) -> GoalContext:
    target = torch.rand(1, *((3, *shape) if len(shape) == 2 else shape), generator=torch.Generator().manual_seed(0))
    settings: dict[str, Any] = {
        "shape": shape,
        "explain": explain,
        "target": target,
        "label": 2,
        "positive_units": None,
        "features": [f"column {i}" for i in range(shape[0])] if len(shape) == 1 else (),
        "box": None,
        "of_class": lambda label: target * label / 10,
        "draw": 0,
    }
    return GoalContext(**{**settings, **changes})


def ones(rows: tuple[int, int], columns: tuple[int, int], shape: tuple[int, int]) -> Tensor:
    values = torch.zeros(shape)
    values[rows[0] : rows[1], columns[0] : columns[1]] = 1
    return values


class TestRegions:
    @pytest.mark.parametrize(
        ("name", "shape", "rows", "columns"),
        [
            ("mid-left", (8, 8), (2, 6), (0, 4)),
            ("mid-left", (4, 4), (1, 3), (0, 2)),
            ("mid-left", (7, 7), (1, 6), (0, 4)),  # 1.75 to 5.25, 0 to 3.5: rounded outward
            ("mid-left", (14, 14), (3, 11), (0, 7)),
            ("mid-right", (7, 7), (1, 6), (3, 7)),
            ("top-left", (7, 5), (0, 4), (0, 3)),
            ("top-right", (8, 8), (0, 4), (4, 8)),
            ("bottom-left", (7, 8), (3, 7), (0, 4)),
            ("bottom-right", (8, 7), (4, 8), (3, 7)),
            ("top", (4, 6), (0, 2), (0, 6)),
            ("bottom", (5, 6), (2, 5), (0, 6)),
            ("left", (4, 5), (0, 4), (0, 3)),
            ("right", (4, 6), (0, 4), (3, 6)),
            ("center", (8, 8), (2, 6), (2, 6)),
            ("center", (6, 6), (1, 5), (1, 5)),
        ],
    )
    def test_are_what_the_documentation_says_in_numbers(
        self, name: str, shape: tuple[int, int], rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        desired = Region(name).resolve(context(shape))
        assert torch.equal(desired.values, ones(rows, columns, shape))
        assert desired.mask is None
        assert name in desired.label

    def test_every_named_region_can_be_asked_for_on_any_grid_that_shows_it(self) -> None:
        for name in REGIONS:
            for shape in ((3, 5), (4, 4), (14, 14)):
                values = Region(name).resolve(context(shape)).values
                assert values.shape == shape
                assert values.unique().tolist() == [0, 1]

    def test_a_region_that_touches_every_cell_asks_for_nothing(self) -> None:
        with pytest.raises(InputError, match="the same at every entry"):
            Region("center").resolve(context((2, 2)))

    @given(
        edges=st.tuples(*[st.integers(0, 20)] * 4).filter(lambda e: e[0] < e[2] and e[1] < e[3]),
        shape=st.tuples(st.integers(1, 15), st.integers(1, 15)),
    )
    def test_a_cell_belongs_to_a_box_exactly_when_they_overlap(
        self, edges: tuple[int, int, int, int], shape: tuple[int, int]
    ) -> None:
        grid = cells(tuple(edge / 20 for edge in edges), shape)  # type: ignore[arg-type]
        top, left, bottom, right = edges
        for i in range(shape[0]):
            for j in range(shape[1]):  # in whole numbers: cell i covers [i/h, (i+1)/h] and the box [top/20, bottom/20]
                rows = i * 20 < bottom * shape[0] and (i + 1) * 20 > top * shape[0]
                columns = j * 20 < right * shape[1] and (j + 1) * 20 > left * shape[1]
                assert bool(grid[i, j]) == (rows and columns)

    def test_an_unknown_region_offers_the_nearest_spelling(self) -> None:
        with pytest.raises(InputError, match=r"unknown region 'midleft'; did you mean 'mid-left'\?"):
            Region("midleft").resolve(context())

    def test_the_paper_s_region_is_the_default(self) -> None:
        assert Region().name == "mid-left"


class TestDrawnRegions:
    def test_one_of_the_named_regions_is_drawn_for_each_target(self) -> None:
        labels = {DrawnRegion().resolve(context((4, 4), draw=draw)).label for draw in range(200)}
        assert labels == {f"the {name} of the image" for name in QUARTERS}

    def test_the_draw_decides(self) -> None:
        for draw in range(20):
            first, second = (DrawnRegion().resolve(context((7, 7), draw=draw)) for _ in range(2))
            name = first.label.split()[1]
            assert torch.equal(first.values, Region(name).resolve(context((7, 7))).values)
            assert first.label == second.label

    def test_names_are_checked(self) -> None:
        with pytest.raises(InputError, match="no names to draw from"):
            DrawnRegion(()).resolve(context((4, 4)))
        with pytest.raises(InputError, match="did you mean 'top-left'"):
            DrawnRegion(("topleft",)).resolve(context((4, 4)))
        for draw in range(10):  # also where another is drawn
            with pytest.raises(InputError, match="did you mean 'top-left'"):
                DrawnRegion((*QUARTERS, "topleft")).resolve(context((4, 4), draw=draw))


class TestBoxes:
    def test_a_box_is_its_cells(self) -> None:
        desired = Box(top=0.1, left=0.5, bottom=0.6, right=1.0).resolve(context((10, 4)))
        assert torch.equal(desired.values, ones((1, 6), (2, 4), (10, 4)))

    def test_an_empty_box_is_refused(self) -> None:
        for box in (Box(0.5, 0.0, 0.5, 1.0), Box(0.0, 0.9, 1.0, 0.1)):
            with pytest.raises(InputError, match="box is empty"):
                box.resolve(context())

    @pytest.mark.parametrize("edge", [{"top": -0.1}, {"bottom": 1.1}, {"left": 1.0}, {"right": 0.0}, {"up": 0.0}])
    def test_a_box_outside_the_image_is_refused(self, edge: dict[str, float]) -> None:
        with pytest.raises(ValidationError):
            Box(**{"top": 0.0, "left": 0.0, "bottom": 1.0, "right": 1.0, **edge})

    def test_away_is_everything_but_the_object(self) -> None:
        known = Away().resolve(context(box=(0.0, 0.0, 0.5, 0.5)))
        desired = Away(box=(0.5, 0.5, 1.0, 1.0)).resolve(context(box=(0.0, 0.0, 0.5, 0.5)))
        assert torch.equal(known.values, 1 - ones((0, 2), (0, 2), (4, 4)))
        assert torch.equal(desired.values, 1 - ones((2, 4), (2, 4), (4, 4)))

    def test_away_from_what_is_outside_the_image_is_refused(self) -> None:
        with pytest.raises(ValidationError):
            Away(box=(-0.6, 0.0, 0.5, 1.0))

    def test_away_needs_to_know_the_object(self) -> None:
        with pytest.raises(InputError, match="needs the object's box"):
            Away().resolve(context())

    def test_away_from_everything_asks_for_nothing(self) -> None:
        with pytest.raises(InputError, match="zero everywhere"):
            Away(box=(0.0, 0.0, 1.0, 1.0)).resolve(context())


@pytest.mark.parametrize(
    "goal", [Region(), Box(0.0, 0.0, 0.5, 0.5), Away(box=(0.0, 0.0, 0.5, 0.5))], ids=lambda g: g.kind
)
def test_goals_for_images_refuse_tables(goal: Goal) -> None:
    with pytest.raises(InputError, match="is for images"):
        goal.resolve(context((5,)))


@pytest.mark.parametrize("goal", [Features(count=1), Units(count=1)], ids=lambda g: g.kind)
def test_goals_for_tables_refuse_images(goal: Goal) -> None:
    with pytest.raises(InputError, match="is for tables"):
        goal.resolve(context((4, 4)))


class TestFeatures:
    def test_are_the_columns_named(self) -> None:
        desired = Features(names=("column 3", "column 0")).resolve(context((5,)))
        assert desired.values.tolist() == [1, 0, 0, 1, 0]
        assert desired.label == "the features column 3, column 0"

    def test_an_unknown_one_offers_the_nearest_spelling(self) -> None:
        with pytest.raises(InputError, match=r"unknown feature 'colum 3'; did you mean 'column 3'\?"):
            Features(names=("colum 3",)).resolve(context((5,)))

    def test_need_a_map_over_columns(self) -> None:
        with pytest.raises(InputError, match="use units"):
            Features(count=1).resolve(context((5,), features=["a", "b"]))

    def test_not_more_than_there_are(self) -> None:
        with pytest.raises(InputError, match="count=6 but there are 5"):
            Features(count=6).resolve(context((5,)))

    def test_all_of_them_ask_for_nothing(self) -> None:
        with pytest.raises(InputError, match="the same at every entry"):
            Features(count=5).resolve(context((5,)))


class TestUnits:
    def test_are_those_given(self) -> None:
        assert Units(units=(4, 1)).resolve(context((5,))).values.tolist() == [0, 1, 0, 0, 1]

    @pytest.mark.parametrize("unit", [-1, 5])
    def test_a_unit_outside_is_refused(self, unit: int) -> None:
        with pytest.raises(InputError, match=r"a unit outside 0\.\.4"):
            Units(units=(0, unit)).resolve(context((5,)))

    @pytest.mark.parametrize("draw", range(6))
    def test_are_drawn_among_those_that_speak_for_the_class(self, draw: int) -> None:
        positive_units = torch.tensor([True, False, True, True, False])
        values = Units(count=2).resolve(context((5,), positive_units=positive_units, draw=draw)).values
        assert values.sum() == 2
        assert not bool((values.bool() & ~positive_units).any())

    def test_where_fewer_speak_for_the_class_all_of_them_are_drawn(self) -> None:
        positive_units = torch.tensor([True, False, True, False, False])
        assert Units(count=3).resolve(context((5,), positive_units=positive_units)).values.tolist() == [1, 0, 1, 0, 0]

    def test_none_speaks_for_the_class(self) -> None:
        with pytest.raises(InputError, match="no unit speaks for the class"):
            Units(count=1).resolve(context((5,), positive_units=torch.zeros(5, dtype=torch.bool)))


@pytest.mark.parametrize(("make", "setting"), [(Features, {"names": ("a",)}), (Units, {"units": (0,)})])
def test_entries_are_either_given_or_drawn(make: Any, setting: dict[str, Any]) -> None:
    for settings in ({}, {**setting, "count": 1}):
        with pytest.raises(ValidationError, match=f"give either {next(iter(setting))} or count"):
            make(**settings)


@pytest.mark.parametrize("make", [Features, Units])
class TestDrawn:
    def test_the_draw_is_stable_and_differs_from_target_to_target(self, make: Any) -> None:
        drawn = [make(count=3).resolve(context((20,), draw=draw)).values for draw in range(10)]
        again = [make(count=3).resolve(context((20,), draw=draw)).values for draw in range(10)]
        assert all(torch.equal(first, second) for first, second in zip(drawn, again, strict=True))
        assert all(values.sum() == 3 for values in drawn)
        assert len({tuple(values.tolist()) for values in drawn}) > 7

    def test_every_entry_can_be_drawn(self, make: Any) -> None:
        total = sum(make(count=2).resolve(context((5,), draw=draw)).values for draw in range(60))
        assert isinstance(total, Tensor)
        assert bool((total > 8).all())  # 24 expected


def test_features_and_units_of_one_target_are_drawn_apart() -> None:
    pairs = [
        (
            Features(count=2).resolve(context((20,), draw=d)).values,
            Units(count=2).resolve(context((20,), draw=d)).values,
        )
        for d in range(5)
    ]
    assert not all(torch.equal(first, second) for first, second in pairs)


class TestOfOthers:
    def test_of_class_is_the_explanation_of_a_sample_of_that_class(self) -> None:
        here = context()
        torch.testing.assert_close(OfClass(label=1).resolve(here).values, here.target[0, 0] / 10 + 1)

    @pytest.mark.parametrize("settings", [{}, {"label": None}, {"label": -1}])
    def test_of_class_needs_a_class(self, settings: dict[str, Any]) -> None:
        with pytest.raises(ValidationError, match="label"):
            OfClass(**settings)

    def test_like_explains_a_picture_for_the_target_s_class(self, tmp_path: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "other.png")
        desired = Like(tmp_path / "other.png").resolve(context())
        torch.testing.assert_close(desired.values, torch.tensor(pixels[:, :, 0] / 255 + 2, dtype=torch.float32))

    def test_like_takes_a_grey_picture_for_every_channel(self, tmp_path: Path) -> None:
        explained = []

        def watching(sample: Tensor, label: int) -> Tensor:
            explained.append(sample)
            return explain(sample, label)

        levels = np.arange(16, dtype=np.uint8).reshape(4, 4)
        Image.fromarray(levels).save(tmp_path / "grey.png")
        Like(tmp_path / "grey.png").resolve(context(explain=watching))
        torch.testing.assert_close(explained[0], torch.from_numpy(levels / 255).float().expand(1, 3, 4, 4))

    @pytest.mark.parametrize("channels", [1, 3])
    def test_like_takes_grey_saved_as_colour_and_of_16_bits(self, tmp_path: Path, channels: int) -> None:
        levels = np.arange(16, dtype=np.uint8).reshape(4, 4)
        Image.fromarray(levels).convert("RGB").save(tmp_path / "grey.png")
        Image.fromarray(levels.astype(np.uint16) * 257).save(tmp_path / "deep.png")
        here = context(target=torch.rand(1, channels, 4, 4))
        for name in ("grey.png", "deep.png"):
            values = Like(tmp_path / name).resolve(here).values
            torch.testing.assert_close(values, torch.from_numpy(levels / 255 + 2).float())

    def test_like_takes_a_row_of_a_table(self, tmp_path: Path) -> None:
        np.save(tmp_path / "row.npy", np.arange(5) / 10)
        desired = Like(tmp_path / "row.npy").resolve(context((5,)))
        torch.testing.assert_close(desired.values, torch.arange(5) / 10 + 2)

    def test_like_refuses_another_shape(self, tmp_path: Path) -> None:
        Image.new("L", (5, 4)).save(tmp_path / "wide.png")
        with pytest.raises(InputError, match=r"is \(3, 4, 5\) but inputs are \(3, 4, 4\)"):
            Like(tmp_path / "wide.png").resolve(context())


class Careless(Goal):
    """Whatever it is given; `resolve` must not trust it."""

    def __init__(self, values: Tensor, mask: Tensor | None = None) -> None:
        self.desired = DesiredMap(values, mask, "careless")

    def _desired(self, context: GoalContext) -> DesiredMap:
        return self.desired


class TestResolve:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_refuses_what_is_not_finite(self, value: float) -> None:
        values = torch.ones(4, 4)
        values[1, 2] = value
        with pytest.raises(InputError, match="NaN or infinity"):
            Careless(values).resolve(context())

    def test_refuses_zero(self) -> None:
        with pytest.raises(InputError, match="zero everywhere"):
            Careless(torch.zeros(4, 4)).resolve(context())

    @pytest.mark.parametrize("masked", [False, True])
    def test_refuses_what_is_constant_where_it_matters(self, masked: bool) -> None:
        values, mask = torch.full((4, 4), 0.5), torch.ones(4, 4, dtype=torch.bool)
        if masked:
            values[0, 0], mask[0, 0] = 1, False
        with pytest.raises(InputError, match="the same at every entry that matters"):
            Careless(values, mask if masked else None).resolve(context())
        mask[0] = True
        values[0, 1] = 1
        assert Careless(values, mask).resolve(context()).values[0, 1] == 1

    @pytest.mark.parametrize("shape", [(4,), (4, 5), (1, 4, 4), (16,)])
    def test_refuses_another_shape(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(InputError, match=r"but the explainer's map is \(4, 4\)"):
            Careless(torch.ones(shape)).resolve(context())

    def test_refuses_a_mask_that_leaves_nothing(self) -> None:
        with pytest.raises(InputError, match="mask leaves no entry"):
            Careless(torch.ones(4, 4), torch.zeros(4, 4, dtype=torch.bool)).resolve(context())

    def test_gives_float32(self) -> None:
        assert Careless(torch.eye(4, dtype=torch.float64)).resolve(context()).values.dtype == torch.float32


class TestFromFile:
    def test_reads_numbers(self, tmp_path: Path) -> None:
        wanted = np.arange(16.0).reshape(4, 4) - 3
        np.save(tmp_path / "map.npy", wanted)
        desired = FromFile(tmp_path / "map.npy").resolve(context())
        assert desired.values.tolist() == wanted.tolist()
        assert desired.mask is None
        assert desired.label == "the map in map.npy"

    @pytest.mark.parametrize("mode", ["L", "1", "LA"])
    def test_reads_a_grey_picture(self, tmp_path: Path, mode: str) -> None:
        levels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
        Image.fromarray(levels).convert(mode).save(tmp_path / "map.png")
        assert FromFile(tmp_path / "map.png").resolve(context((2, 2))).values.tolist() == [[0, 1], [1, 0]]

    def test_reads_a_mask(self, tmp_path: Path) -> None:
        np.save(tmp_path / "map.npy", np.eye(2))
        Image.fromarray(np.array([[0, 1], [128, 255]], dtype=np.uint8)).save(tmp_path / "mask.png")
        desired = FromFile(tmp_path / "map.npy", mask=tmp_path / "mask.png").resolve(context((2, 2)))
        assert desired.mask is not None
        assert desired.mask.tolist() == [[False, True], [True, True]]

    def test_the_mask_has_the_map_s_shape(self, tmp_path: Path) -> None:
        np.save(tmp_path / "map.npy", np.ones((2, 2)))
        np.save(tmp_path / "mask.npy", np.ones((2, 3)))
        with pytest.raises(InputError, match="give them one shape"):
            FromFile(tmp_path / "map.npy", mask=tmp_path / "mask.npy").resolve(context((2, 2)))

    def test_a_colour_picture_is_not_a_map(self, tmp_path: Path) -> None:
        Image.new("RGB", (2, 2), (1, 2, 3)).save(tmp_path / "map.png")
        with pytest.raises(InputError, match=r"the goal's shape is \(3, 2, 2\)"):
            FromFile(tmp_path / "map.png").resolve(context((2, 2)))

    def test_a_16_bit_picture_keeps_its_precision(self, tmp_path: Path) -> None:
        levels = np.array([[0, 1000], [1001, 65_535]], dtype=np.uint16)
        Image.fromarray(levels).save(tmp_path / "map.png")
        desired = FromFile(tmp_path / "map.png", mask=tmp_path / "map.png").resolve(context((2, 2)))
        torch.testing.assert_close(desired.values, torch.from_numpy(levels / 65535).float())
        assert desired.mask is not None
        assert desired.mask.tolist() == [[False, True], [True, True]]

    @pytest.mark.parametrize("dtype", [np.float32, np.int32])
    def test_pictures_that_state_no_range_are_refused(self, tmp_path: Path, dtype: Any) -> None:
        Image.fromarray(np.eye(2).astype(dtype)).save(tmp_path / "map.tif")
        with pytest.raises(InputError, match=r"map\.tif holds numbers that state no range .*; give a \.npy"):
            FromFile(tmp_path / "map.tif").resolve(context((2, 2)))

    @pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "PA", "CMYK", "L"])
    @pytest.mark.parametrize("role", ["path", "mask"])
    def test_grey_may_be_saved_as_colour(self, tmp_path: Path, mode: str, role: str) -> None:
        levels = np.array([[0, 255], [255, 0]], dtype=np.uint8)
        grey = Image.fromarray(levels)
        image = grey.convert("RGB").convert(mode) if mode == "CMYK" else grey.convert(mode)
        ending = {"CMYK": "tif", "PA": "tif"}.get(mode, "png")
        image.save(tmp_path / f"saved.{ending}")
        np.save(tmp_path / "map.npy", np.array([[0.0, 1.0], [0.5, 0.0]]))
        paths = {"path": tmp_path / "map.npy", role: tmp_path / f"saved.{ending}"}
        desired = FromFile(**paths).resolve(context((2, 2)))
        expected = desired.values if role == "path" else desired.mask
        assert expected is not None
        assert expected.tolist() == [[0, 1], [1, 0]]

    @pytest.mark.parametrize("ending", ["png", "gif"])
    def test_transparency_states_no_value(self, tmp_path: Path, ending: str) -> None:
        image = Image.new("RGBA", (2, 2), (255, 255, 255, 255))
        image.putpixel((0, 0), (0, 0, 0, 0))
        image.save(tmp_path / f"map.{ending}")
        with pytest.raises(InputError, match="is transparent somewhere, which states no value"):
            FromFile(tmp_path / f"map.{ending}").resolve(context((2, 2)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_a_transparent_colour_states_no_value(self, tmp_path: Path, dtype: Any) -> None:
        Image.fromarray(np.eye(2).astype(dtype)).save(tmp_path / "map.png", transparency=0)
        with pytest.raises(InputError, match="has a transparent colour"):
            FromFile(tmp_path / "map.png").resolve(context((2, 2)))

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
    def test_a_picture_is_turned_upright(self, tmp_path: Path, dtype: Any) -> None:
        exif = Image.Exif()
        exif[274] = 6
        levels = (np.array([[0, 1], [0, 0]]) * np.iinfo(dtype).max).astype(dtype)
        Image.fromarray(levels).save(tmp_path / "map.png", exif=exif)
        assert FromFile(tmp_path / "map.png").resolve(context((2, 2))).values.tolist() == [[0, 0], [0, 1]]

    @pytest.mark.parametrize("array", [np.eye(2) * 1j, np.array([["1", "0"], ["0", "1"]])])
    def test_other_than_real_numbers_are_refused(self, tmp_path: Path, array: Any) -> None:
        np.save(tmp_path / "map.npy", array)
        with pytest.raises(InputError, match=rf"cannot be read as numbers, as it holds {array.dtype}"):
            FromFile(tmp_path / "map.npy").resolve(context((2, 2)))

    def test_nan_in_a_mask_is_neither(self, tmp_path: Path) -> None:
        np.save(tmp_path / "map.npy", np.eye(2))
        np.save(tmp_path / "mask.npy", np.array([[1, 0], [math.nan, 1]]))
        with pytest.raises(InputError, match=r"the mask .*mask\.npy holds NaN; write 0"):
            FromFile(tmp_path / "map.npy", mask=tmp_path / "mask.npy").resolve(context((2, 2)))

    def test_a_missing_file_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"none\.npy does not exist"):
            FromFile(tmp_path / "none.npy").resolve(context())

    def test_a_pickled_array_is_refused_and_not_run(self, tmp_path: Path) -> None:
        class Hostile:
            def __reduce__(self) -> tuple[Any, tuple[str]]:
                return (Path.touch, (tmp_path / "ran",))  # type: ignore[return-value]

        np.save(tmp_path / "map.npy", np.array([Hostile()], dtype=object))
        (tmp_path / "bare.npy").write_bytes(pickle.dumps(Hostile()))
        for name in ("map.npy", "bare.npy"):
            with pytest.raises(InputError, match="cannot be read"):
                FromFile(tmp_path / name).resolve(context())
        assert not (tmp_path / "ran").exists()

    def test_damaged_files_are_input_errors_whatever_the_damage(self, tmp_path: Path) -> None:
        buffer = io.BytesIO()
        np.save(buffer, np.ones((4, 4)))
        table = io.BytesIO()
        np.save(table, np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f4")]))
        archive = io.BytesIO()
        np.savez(archive, a=np.ones(3))
        complete = buffer.getvalue()
        unclosed = complete.replace(b"(4, 4)", b"(4, 4 ")
        for content in (b"", b"hello", complete[:30], complete[:-3], unclosed, table.getvalue(), archive.getvalue()):
            (tmp_path / "map.npy").write_bytes(content)
            with pytest.raises(InputError, match="cannot be read"):
                FromFile(tmp_path / "map.npy").resolve(context())
        picture = io.BytesIO()
        Image.new("L", (64, 64)).save(picture, "png")
        for content in (b"", b"hello", picture.getvalue()[: len(picture.getvalue()) // 2]):
            (tmp_path / "map.png").write_bytes(content)
            with pytest.raises(InputError, match="cannot be read"):
                FromFile(tmp_path / "map.png").resolve(context())


def test_a_misspelt_setting_is_an_error() -> None:
    for make in (Region, DrawnRegion, Box, Away, Features, Units, OfClass, Like, FromFile):
        with pytest.raises(ValidationError):
            make(naem="x")
