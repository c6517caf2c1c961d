"""Where data sets come from: the manifest, what can be had, downloads, and messages that say what to do."""

import hashlib
import os
import resource
from pathlib import Path

import jsonschema
import kagglehub
import numpy as np
import pytest
import yaml

from sigad.data.sources import availability, enabled_datasets, fetch, has_kaggle_credentials, load, local_path
from sigad.errors import ConfigurationError, InvalidInputError, MissingDataError, StorageError

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "data" / "tabular"
SAYS = {"label": "good", "normal": 1}  # what is normal
PAPER = {"heart", "money", "fire", "cancer", "credit", "student", "bankruptcy", "drink", "nuclear", "network"}


@pytest.fixture(scope="module")
def manifest():
    return yaml.safe_load((ROOT / "config" / "datasets.yaml").read_text())


@pytest.fixture(scope="module")
def schema():
    return yaml.safe_load((ROOT / "config" / "schemas" / "datasets.schema.yaml").read_text())


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch, tmp_path):
    """No credentials, and no Kaggle folder of the person who runs the tests."""
    for key in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_API_TOKEN", "KAGGLE_CONFIG_DIR"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home" / ".kaggle").mkdir(parents=True)


@pytest.fixture
def csv(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "mirror" / "set.csv"
    path.parent.mkdir()
    rows = [f"{a:.6f},{b:.6f},{int(i < 40)}" for i, (a, b) in enumerate(rng.normal(size=(50, 2)))]
    path.write_text("\n".join(["u,v,good", *rows]) + "\n")
    return path


def kaggle(**more):
    return {"source": "kaggle", "slug": "owner/name", "label": "good", "normal": 1} | more


@pytest.fixture
def fake_kaggle(monkeypatch, tmp_path, csv):
    """kagglehub.dataset_download as documented: takes a handle, returns the folder with the files."""
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    folder = tmp_path / "cache"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "set.csv").write_bytes(csv.read_bytes())
    handles = []

    def dataset_download(handle):
        handles.append(handle)
        return str(folder)

    monkeypatch.setattr(kagglehub, "dataset_download", dataset_download)
    return folder, handles


class TestManifest:
    def test_it_follows_its_schema(self, manifest, schema):
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(manifest, schema)

    def test_the_ten_sets_of_the_paper_are_declared(self, manifest):
        assert {name for name, entry in manifest["tabular"].items() if entry.get("paper")} == PAPER
        assert all(entry["licence"] and entry["citation"] for entry in manifest["tabular"].values())

    @pytest.mark.parametrize(
        ("key", "value"),
        [("colums", ["a", "b"]), ("enabled", "yes"), ("sha256", "12"), ("source", "ftp"), ("slug", "x")],
    )
    def test_a_typo_is_an_error_that_names_the_key_or_value(self, manifest, schema, key, value):
        wrong = {"tabular": {"heart": manifest["tabular"]["heart"] | {key: value}}}
        with pytest.raises(jsonschema.ValidationError, match=key if key == "colums" else str(value)):
            jsonschema.validate(wrong, schema)

    def test_every_key_is_described_and_no_object_is_open(self, schema):
        table = schema["$defs"]["table"]
        assert table["additionalProperties"] is False and schema["additionalProperties"] is False
        assert all("description" in value for value in table["properties"].values())

    def test_without_credentials_and_files_the_packaged_sets_remain(self, manifest, tmp_path):
        used, left_out = enabled_datasets(manifest["tabular"], tmp_path)
        assert used == ["cancer", "wine", "iris", "fair"]
        assert set(left_out) == PAPER - {"cancer"}
        for name, reason in left_out.items():
            assert str(tmp_path / "tabular" / f"{name}.csv") in reason
            assert ("slug" in reason) if manifest["tabular"][name]["slug"] is None else ("KAGGLE_API_TOKEN" in reason)

    @pytest.mark.parametrize(
        ("name", "shape", "normal"),
        [("cancer", (569, 10), 357), ("wine", (178, 13), 130), ("iris", (150, 4), 100), ("fair", (6366, 8), 4313)],
    )
    def test_packaged_sets_load(self, manifest, tmp_path, name, shape, normal):
        table = load(name, manifest["tabular"][name], tmp_path)
        assert table.name == name and table.x.shape == shape and table.normal.sum() == normal

    @pytest.mark.parametrize(
        ("name", "file", "d"),
        [
            ("heart", "heart.csv", 7),
            ("money", "money_subset.csv", 5),
            ("student", "student.csv", 7),
            ("network", "network.csv", 7),
            ("drink", "drink.csv", 9),
        ],
    )
    def test_real_files_read_as_declared(self, manifest, tmp_path, name, file, d):
        if not SHARED.is_dir():
            pytest.skip("needs the folder ../shared/data with copies of the Kaggle sets")
        path = local_path(name, tmp_path)
        path.parent.mkdir(parents=True)
        path.symlink_to(SHARED / file)
        used, _ = enabled_datasets(manifest["tabular"], tmp_path)
        assert name in used
        table = load(name, manifest["tabular"][name], tmp_path)
        assert table.x.shape[1] == d and 4 <= d <= 10
        assert table.normal.sum() >= 500 and (~table.normal).sum() >= 50


class TestCredentials:
    def test_none(self):
        assert not has_kaggle_credentials()

    @pytest.mark.parametrize(
        ("environment", "enough"),
        [
            ({"KAGGLE_API_TOKEN": "t"}, True),
            ({"KAGGLE_USERNAME": "u", "KAGGLE_KEY": "k"}, True),
            ({"KAGGLE_USERNAME": "u"}, False),
            ({"KAGGLE_API_TOKEN": ""}, False),
        ],
    )
    def test_in_the_environment(self, monkeypatch, environment, enough):
        for key, value in environment.items():
            monkeypatch.setenv(key, value)
        assert has_kaggle_credentials() is enough

    @pytest.mark.parametrize("file", ["kaggle.json", "access_token"])
    def test_in_the_kaggle_folder(self, file):
        (Path(os.environ["HOME"]) / ".kaggle" / file).write_text("{}")
        assert has_kaggle_credentials()

    def test_in_a_folder_of_ones_own(self, monkeypatch, tmp_path):
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
        assert not has_kaggle_credentials()
        (tmp_path / "kaggle.json").write_text("{}")
        assert has_kaggle_credentials()


class TestAvailability:
    @pytest.mark.parametrize(
        ("entry", "words"),
        [
            ({"source": "package"}, ["module", "load_wine"]),
            ({"source": "package", "module": "no_such_package.x"}, ["no_such_package", "install"]),
            ({"source": "csv"}, ["tabular: mine: path"]),
            ({"source": "csv", "path": "nowhere/mine.csv"}, ["nowhere/mine.csv", "tabular: mine: path"]),
            ({"source": "url"}, ["tabular: mine: url", "mine.csv"]),
            ({"source": "url", "url": "ftp://host/x.csv"}, ["ftp", "tabular: mine: url"]),
            ({"source": "url", "url": "file:///nowhere/x.csv"}, ["nowhere/x.csv", "tabular: mine: url", "mine.csv"]),
            ({"source": "kaggle", "slug": None}, ["Kaggle name", "tabular: mine: slug", "mine.csv"]),
            (kaggle(), ["KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "kaggle.json", "owner/name", "mine.csv"]),
        ],
    )
    def test_what_cannot_be_had_says_what_to_do(self, tmp_path, entry, words):
        available, reason = availability("mine", entry, tmp_path)
        assert not available
        for word in words:
            assert word in reason
        with pytest.raises(MissingDataError, match="mine"):
            fetch("mine", entry, tmp_path)

    def test_a_local_file_needs_no_credentials(self, tmp_path, csv):
        path = local_path("mine", tmp_path)
        path.parent.mkdir()
        path.write_bytes(csv.read_bytes())
        for entry in (kaggle(), kaggle(slug=None), SAYS | {"source": "url"}):
            assert availability("mine", entry, tmp_path) == (True, f"file {path}")

    def test_a_set_of_which_nobody_said_what_is_normal_is_left_out(self, tmp_path, csv):
        entry = {"source": "csv", "path": str(csv), "label": "good", "normal": None}
        available, reason = availability("mine", entry, tmp_path)
        assert not available and "what is normal" in reason
        assert "tabular: mine: normal" in reason and "tabular: mine: label" not in reason
        assert (
            "tabular: mine: label` and `tabular: mine: normal"
            in availability("mine", {"source": "kaggle"}, tmp_path)[1]
        )

    def test_what_can_be_fetched(self, tmp_path, csv, monkeypatch):
        assert availability("mine", SAYS | {"source": "url", "url": "https://example.org/x.csv"}, tmp_path)[0]
        assert availability("mine", SAYS | {"source": "url", "url": csv.as_uri()}, tmp_path)[0]
        assert availability("mine", SAYS | {"source": "csv", "path": str(csv)}, tmp_path)[0]
        monkeypatch.setenv("KAGGLE_API_TOKEN", "t")
        assert availability("mine", kaggle(), tmp_path) == (True, "from Kaggle, owner/name")

    def test_an_unknown_source(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"mine.*package, kaggle, csv, url.*'ftp'"):
            availability("mine", {"source": "ftp"}, tmp_path)


class TestEnabled:
    def test_auto_true_false(self, tmp_path, csv):
        there = SAYS | {"source": "csv", "path": str(csv)}
        entries = {
            "a": there,
            "b": there | {"enabled": True},
            "c": there | {"enabled": False},
            "d": kaggle(enabled="auto"),
            "e": kaggle(enabled=False),
        }
        used, left_out = enabled_datasets(entries, tmp_path)
        assert used == ["a", "b"] and list(left_out) == ["c", "d", "e"]
        assert "tabular: c: enabled" in left_out["c"] and "KAGGLE" in left_out["d"]

    def test_required_sets_that_are_missing_are_all_named(self, tmp_path):
        entries = {"a": kaggle(enabled=True), "b": {"source": "csv", "path": "no/b.csv", "enabled": True}}
        with pytest.raises(MissingDataError, match=r"(?s)enabled: true.*a: .*KAGGLE_API_TOKEN.*a\.csv.*b: .*no/b\.csv"):
            enabled_datasets(entries, tmp_path)

    def test_another_value(self, tmp_path):
        with pytest.raises(ConfigurationError, match=r"a: enabled must be auto, true or false, not 'maybe'"):
            enabled_datasets({"a": kaggle(enabled="maybe")}, tmp_path)


class TestFetch:
    def test_a_mirror_with_the_right_digest(self, tmp_path, csv):
        digest = hashlib.sha256(csv.read_bytes()).hexdigest()
        entry = {"source": "url", "url": csv.as_uri(), "sha256": digest.upper(), "label": "good", "normal": 1}
        path = fetch("mine", entry, tmp_path / "data")
        assert path == tmp_path / "data" / "tabular" / "mine.csv" and path.read_bytes() == csv.read_bytes()
        csv.unlink()
        assert fetch("mine", entry, tmp_path / "data") == path  # once there, the mirror is not asked again
        assert load("mine", entry, tmp_path / "data").normal.sum() == 40
        assert sorted(p.name for p in path.parent.iterdir()) == ["mine.csv", "mine.csv.downloaded"]

    def test_a_mirror_stands_in_for_kaggle(self, tmp_path, csv):
        path = fetch("mine", kaggle(url=csv.as_uri()), tmp_path)
        assert path.read_bytes() == csv.read_bytes()

    def test_a_wrong_digest_shows_both_and_leaves_nothing(self, tmp_path, csv):
        found, wrong = hashlib.sha256(csv.read_bytes()).hexdigest(), "0" * 64
        entry = {"source": "url", "url": csv.as_uri(), "sha256": wrong}
        with pytest.raises(InvalidInputError, match=rf"mine\.csv.*{found}.*{wrong}.*tabular: mine: sha256"):
            fetch("mine", entry, tmp_path)
        assert list((tmp_path / "tabular").iterdir()) == []

    def test_the_digest_of_a_file_put_there_by_hand_is_checked_and_the_file_kept(self, tmp_path, csv):
        path = local_path("mine", tmp_path)
        path.parent.mkdir()
        path.write_bytes(csv.read_bytes())
        with pytest.raises(InvalidInputError, match="0" * 64):
            fetch("mine", kaggle(sha256="0" * 64), tmp_path)
        assert path.is_file()

    def test_leftovers_of_an_interrupted_download_do_no_harm(self, tmp_path, csv):
        (tmp_path / "tabular").mkdir()
        (tmp_path / "tabular" / "mine.csv.part").write_text("half of it")
        assert fetch("mine", {"source": "url", "url": csv.as_uri()}, tmp_path).read_bytes() == csv.read_bytes()

    def test_a_download_that_fails_says_what_to_do(self, tmp_path):
        entry = {"source": "url", "url": "http://127.0.0.1:9/x.csv"}  # the discard port: refused at once
        with pytest.raises(MissingDataError, match=r"127\.0\.0\.1.*tabular: mine: url.*mine\.csv"):
            fetch("mine", entry, tmp_path)

    def test_kaggle(self, tmp_path, fake_kaggle):
        _, handles = fake_kaggle
        path = fetch("mine", kaggle(version=3), tmp_path)
        assert handles == ["owner/name/versions/3"] and path == local_path("mine", tmp_path)
        assert load("mine", kaggle(version=3), tmp_path).columns == ("u", "v")
        assert len(handles) == 1

    def test_what_cannot_be_kept_of_kaggle_leaves_nothing(self, tmp_path, fake_kaggle):
        folder, _ = fake_kaggle
        (folder / "deep" / "set.csv").write_bytes(bytes(1 << 17))
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))  # as if the disk were full
        try:
            with pytest.raises(StorageError, match=r"mine\.csv could not be written \(File too large\): make room"):
                fetch("mine", kaggle(), tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        with pytest.raises(InvalidInputError, match=r"mine\.csv has sha256 .* expected was 0000"):
            fetch("mine", kaggle(sha256="0" * 64), tmp_path)
        assert list((tmp_path / "tabular").iterdir()) == []

    def test_several_files_at_kaggle_need_a_choice(self, tmp_path, fake_kaggle):
        folder, _ = fake_kaggle
        (folder / "other.csv").write_text("a\n")
        with pytest.raises(ConfigurationError, match=r"tabular: mine: file.*deep/set\.csv, other\.csv"):
            fetch("mine", kaggle(), tmp_path)
        assert fetch("mine", kaggle(file="deep/set.csv"), tmp_path).is_file()

    def test_kaggle_refuses(self, tmp_path, fake_kaggle, monkeypatch):
        def refuse(handle):
            raise RuntimeError("403 Client Error")

        monkeypatch.setattr(kagglehub, "dataset_download", refuse)
        with pytest.raises(MissingDataError, match=r"owner/name.*403.*credentials.*slug.*mine\.csv"):
            fetch("mine", kaggle(), tmp_path)

    def test_a_set_of_which_nobody_said_what_is_normal(self, tmp_path, manifest, csv):
        path = local_path("fire", tmp_path)
        path.parent.mkdir()
        path.write_bytes(csv.read_bytes())
        with pytest.raises(ConfigurationError, match=r"'fire'.*tabular: fire: label.*tabular: fire: normal"):
            load("fire", manifest["tabular"]["fire"], tmp_path)

    def test_a_csv_of_ones_own(self, tmp_path, csv):
        entry = {
            "source": "csv",
            "path": str(csv),
            "label": "good",
            "normal": 1,
            "columns": ["u", "v"],
            "separator": ",",
        }
        table = load("mine", entry, tmp_path / "data")
        assert table.name == "mine" and table.x.shape == (50, 2) and not (tmp_path / "data").exists()
