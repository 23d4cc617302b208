"""`wavecity bench ...`: the options of the benchmarks; what each measures is in the module of its name."""

from pathlib import Path

import click

from wavecity.flows.commands.options import import_extra, path, set_option
from wavecity.flows.help import GroupedCommands
from wavecity.geo.errors import InputError


@click.group(cls=GroupedCommands)
def bench() -> None:
    """Measure speed and memory, compared with alternatives on this machine."""


@bench.command("raytrace")
@click.option("--scenes", type=click.IntRange(1), default=4, show_default=True, help="Scenes, evenly from the maps.")
@click.option("--rays", type=click.IntRange(1000, 100_000_000), default=1_000_000, show_default=True)
@click.option("--depth", type=click.IntRange(1, 8), default=3, show_default=True, help="Largest number of bounces.")
@click.option("--users", type=click.IntRange(1, 100_000), default=400, show_default=True, help="Users of every scene.")
@click.option("--diffraction", is_flag=True, help="With first-order diffraction.")
@click.option("--diffuse", is_flag=True, help="Also compare diffuse scattering.")
@click.option("--map", "maps", multiple=True, metavar="FILE", help="Extract, repeatable (default: helsinki).")
@click.option("--throughput-scenes", type=click.IntRange(1), help="Scenes for users per second (default: the same).")
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_raytrace(out: Path | None, **options: object) -> None:
    """Our solver and Sionna's own PathSolver on real tiles; users per second of the whole stage.

    Both run warm on the same scene with the same rays and depth: specular reflection, no LoS (it costs both solvers one
    ray per user), no refraction, one isotropic V antenna at each end. Users per second are those of a build, from mesh
    to channels with LoS, after the scenes are built.
    """
    options["maps"] = options["maps"] or ("helsinki",)
    options["throughput_scenes"] = options["throughput_scenes"] or options["scenes"]
    _measure("raytrace", "generate", out, **options)


@bench.command("geo")
@click.option("--tiles", type=click.IntRange(1), default=8, show_default=True, help="Tiles of every map.")
@click.option("--map", "maps", multiple=True, metavar="FILE", help="Extract, repeatable (default: helsinki).")
@click.option("--region", is_flag=True, help="Merge the maps into one extract first, as that of a region.")
@click.option(
    "--reader", type=click.Choice(["osmium", "osmnx"]), default="osmium", show_default=True,
    help="How the reference reads maps; osmnx takes complete .osm files only.",
)  # fmt: skip
@click.option(
    "--copies", type=click.IntRange(1, 60), default=1, show_default=True,
    help="With --region: repeat the maps so often, to the size of a city's extract.",
)  # fmt: skip
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_geo(out: Path | None, **options: object) -> None:
    """Maps to meshes and rasters, compared with a pipeline in the manner of Geo2SigMap, on the same real tiles.

    The reference reads the extract for every tile, triangulates with Triangle, and writes a PLY file for every building
    and an XML file; ours goes from the indexed map to a checked scene in memory. Conversion to the index is reported
    separately. The speed-up depends on the size of the extract, which the reference reads for every tile.
    """
    options["maps"] = options["maps"] or ("helsinki",)
    _measure("geo", "generate,test", out, **options)


@bench.command("load")
@click.option("--data", metavar="STORE", help="Local store whose train split is read (default: build one of Helsinki).")
@click.option("--scenes", type=click.IntRange(1), default=128, show_default=True, help="Scenes of the store built.")
@click.option("--users", type=click.IntRange(1, 100_000), default=400, show_default=True, help="Users of every scene.")
@click.option(
    "--samples", type=click.IntRange(1), default=2000, show_default=True,
    help="Samples of the tar copy; a fifth is read naively.",
)  # fmt: skip
@click.option("--batch", type=click.IntRange(1), default=256, show_default=True, help="Samples of a batch.")
@click.option("--window", type=click.IntRange(1), default=4, show_default=True, help="Units decoded together.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds; medians are reported.")
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_load(out: Path | None, **options: object) -> None:
    """Shuffled whole samples per second, cold and warm, compared with memmap, naive indexing and WebDataset.

    A sample is csi, spectrum, height, occupancy, position, LoS and best beam of a user.
    """
    _measure("load", "generate,test", out, **options)


@bench.command("orchestrate")
@click.option("--scenes", type=click.IntRange(1), default=10_000, show_default=True, help="Null scenes.")
@click.option("--unit", type=click.IntRange(1, 1024), default=16, show_default=True, help="Scenes of a unit.")
@click.option(
    "--seconds-per-scene", type=click.FloatRange(0), default=0.0, show_default=True,
    help="What a scene sleeps in one more run of all of them, e.g. 0.5.",
)  # fmt: skip
@click.option("--workers", type=click.IntRange(1), default=2, show_default=True, help="Worker processes.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds; medians are reported.")
@click.option("--map-scenes", type=click.IntRange(1), default=500, show_default=True, help="Scenes of Prefect's map.")
@click.option(
    "--scaling-scenes", type=click.IntRange(1), default=320, show_default=True,
    help="Sleeping scenes with one worker and with two.",
)  # fmt: skip
@click.option(
    "--check-units", type=click.IntRange(0), default=64, show_default=True,
    help="Units of a run whose arrays are compared with their receipts.",
)  # fmt: skip
@click.option(
    "--database", type=click.Choice(["sqlite", "postgresql"]), default="sqlite", show_default=True,
    help="Of the Prefect server.",
)  # fmt: skip
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_orchestrate(out: Path | None, **options: object) -> None:
    """What orchestration costs per scene, compared with plain Dask and Prefect's task.map, with null scenes.

    The flow's own steps, one Prefect task per unit, with real receipts, recorded by a real server. Without
    --seconds-per-scene the overhead is projected to scenes of 0.5 s.
    """
    _measure("orchestrate", "generate", out, **options)


@bench.command("build")
@click.option("--scenes", type=click.IntRange(1), default=64, show_default=True, help="Scenes of Helsinki.")
@click.option("--unit", type=click.IntRange(1, 1024), default=4, show_default=True, help="Scenes of a unit.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds; medians are reported.")
@set_option
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_build(out: Path | None, **options: object) -> None:
    """Scenes per second of the real build with one and two workers, compared with the bare functions.

    The recipe is pretrain-10k on the packaged map, with changes by --set. The units are timed warm; the start of the
    workers, their imports and compiling are reported separately.
    """
    _measure("build", "generate", out, **options)


@bench.command("moving")
@click.option("--scenes", type=click.IntRange(1), default=4, show_default=True, help="Scenes of the map.")
@click.option("--users", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Users of every scene.")
@click.option("--map", metavar="FILE", default="helsinki", show_default=True, help="Extract.")
@set_option
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_moving(out: Path | None, **options: object) -> None:
    """Channels of users that move, compared with tracing every snapshot, on the same real scenes.

    The recipe is temporal on one map, with changes by --set. It reports the ratio of the times, and for every kind of
    user the error of the whole channel (all snapshots, subcarriers and antennas) against tracing every snapshot.
    """
    _measure("moving", "generate", out, **options)


@bench.command("train")
@click.option("--data", metavar="STORE", help="Store to train on (default: build a small one of Helsinki).")
@click.option("--recipe", default="pretrain-10k", show_default=True, help="Whose training settings count.")
@click.option("--scenes", type=click.IntRange(8), default=8, show_default=True, help="Scenes of the store built.")
@click.option("--steps", type=click.IntRange(1), default=40, show_default=True, help="Timed steps of every side.")
@click.option("--batch", type=click.IntRange(2), default=16, show_default=True, help="Users of a step.")
@click.option(
    "--threads", type=click.IntRange(0), default=0, show_default=True, help="Threads of torch; 0: its choice."
)
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_train(out: Path | None, **options: object) -> None:
    """Lightning training compared with a plain loop of the same model and full-length masked attention, on the CPU.

    All sides train on the same batches and masks, step by step in turns. It reports samples per second, peak memory,
    the share of data loading, and the speed of one process and of two.
    """
    _measure("train", "generate,train", out, **options)


@bench.command("attention")
@click.option(
    "--tokens", type=click.IntRange(512), default=4096, show_default=True,
    help="Largest number of tokens; 8192 and 16384 take GB with a mask.",
)  # fmt: skip
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True, help="Rounds; medians are reported.")
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True, help="Samples.")
@click.option(
    "--threads", type=click.IntRange(0), default=1, show_default=True, help="Threads of torch; 0: its choice."
)
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_attention(out: Path | None, **options: object) -> None:
    """Sparse spatio-temporal attention compared with dense attention, with and without top-k, on the CPU.

    Time and peak memory, forward and with backward, over the number of tokens; the output is that of dense attention
    under the same mask, which is checked.
    """
    _measure("attention", "generate,train", out, **options)


@bench.command("latency")
@click.option("--data", metavar="STORE", help="Store whose users are taken (default: build a small one of Helsinki).")
@click.option("--scenes", type=click.IntRange(8), default=8, show_default=True, help="Scenes of the store built.")
@click.option("--rounds", type=click.IntRange(1), default=20, show_default=True, help="Rounds; medians are reported.")
@click.option("--patches", type=click.IntRange(1), default=16, show_default=True, help="CSI patches that are seen.")
@click.option("--snr", type=float, default=10.0, show_default=True, help="Signal-to-noise ratio of these, dB.")
@click.option(
    "--threads", type=click.IntRange(0), default=1, show_default=True, help="Threads of torch; 0: its choice."
)
@click.option("--json", "out", type=path, help="File for all figures.")
def bench_latency(out: Path | None, **options: object) -> None:
    """Path model from channel to location: front end, network and both, with one user and with 64, on the CPU.

    Compared with the network of the paper's profile alone, and with the physics localiser; medians over the rounds, in which
    the sides take turns.
    """
    _measure("latency", "generate,train", out, **options)


def _measure(name: str, extra: str, out: Path | None, **options: object) -> None:
    """Run a benchmark with its options, and write its figures."""
    from wavecity.dataset.files import write_json

    _check_json(out)
    module = import_extra(f"wavecity.flows.bench.{name}", extra)
    with import_extra("wavecity.flows.guard", "generate").no_orphans():
        result = module.run(module.Options(**options))
    if out is not None:
        write_json(out, result)


def _check_json(out: Path | None) -> None:
    """Before the long part of a benchmark: can its figures be written?"""
    from wavecity.dataset.files import make_folder

    if out is None:
        return
    make_folder(out.parent)
    if out.is_dir():
        msg = f"--json {out}: is a folder; name a file"
        raise InputError(msg)
