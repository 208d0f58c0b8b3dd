"""Weights and start-up: what is fetched, what a start is at, how long it takes, what is in its way."""

from observability.boards import panels
from observability.boards.fleet import MODEL, coded
from observability.boards.panels import AMBER, BLUE, GREEN, GREY, RED, Board, Query, Row, Scale

ITS = 'slug=~"$slug"'
WORKER = "{{slug}} {{instance}}"
TEAL, INDIGO = "#1aa3a3", "#5b6fd6"
PHASES = {
    1: ("weights-check", GREY),
    2: ("waiting-for-gpus", AMBER),
    3: ("starting", "yellow"),
    4: ("loading", BLUE),
    5: ("compiling", "purple"),
    6: ("graphs", TEAL),
    7: ("warm-up", INDIGO),
    8: ("warming", "orange"),
    9: ("ready", GREEN),
    10: ("back-off", RED),
    11: ("misconfigured", RED),
    12: ("stopping", GREY),
}
FETCHING = {
    1: ("listing", GREY),
    2: ("downloading", BLUE),
    3: ("verifying", "purple"),
    4: ("publishing", TEAL),
    5: ("ready", GREEN),
    6: ("failed", RED),
}
LOADED = f'(launcher_phase_seconds{{{ITS},phase="loading"}} > 0)'
BEFORE_READY = 'phase!~"ready|back-off|misconfigured|stopping"'


def job(metric: str, only: str = "") -> str:
    """Of the slug's last weights job, which ends when it is done: what it told last within a day."""
    return f"max by (slug) (last_over_time({metric}{{{ITS}{only}}}[1d]))"


STARTING = Row(
    "Starts",
    [
        panels.states(
            "In which phase is each worker?",
            "waiting-for-gpus: another worker uses them. back-off: vLLM ended by itself; its log gives "
            "the reason. misconfigured: fix serve.yaml and restart. See docs/operations.md, A worker does"
            " not become ready.",
            PHASES,
            Query(coded("launcher_phase", "slug, instance", PHASES, "phase", ITS), WORKER),
            to=(MODEL,),
            width=panels.WIDE,
        ),
        panels.bars(
            "How long did each phase of the last start take (s)?",
            "Work on the longest one. loading: the disk; compiling: a lost cache; starting: the image.",
            panels.SECONDS,
            Query(
                f"max by (slug, phase) (launcher_phase_seconds{{{ITS},{BEFORE_READY}}})", "{{slug}} {{phase}}"
            ),
        ),
        panels.bars(
            "How long does each phase usually take (s)?",
            "The median of the last five starts that became ready. An alert fires when a start takes "
            "twice as long.",
            panels.SECONDS,
            Query(
                f"max by (slug, phase) (launcher_usual_phase_seconds{{{ITS},{BEFORE_READY}}})",
                "{{slug}} {{phase}}",
            ),
        ),
        panels.lines(
            "How long until each worker is ready (s)?",
            "Estimated from its earlier starts; clients are told the same. If it does not fall, look at "
            "the phase, above.",
            panels.SECONDS,
            Query(f"launcher_start_left_seconds{{{ITS}}}", WORKER),
        ),
    ],
)

LOADING = Row(
    "Loading and compiling",
    [
        panels.numbers(
            "How fast were the weights loaded (bytes/s)?",
            "The size divided by the seconds of loading. Far below the disk's speed: check safetensors-"
            "load-strategy in serve.yaml, or a shared volume.",
            Scale("Bps"),
            Query(
                f"max by (slug) (launcher_weights_bytes{{{ITS}}} / on (slug, instance) {LOADED})", "{{slug}}"
            ),
        ),
        panels.numbers(
            "Which share of the weights is loaded?",
            "1 when loading is over. If it stands still, the disk is slow, or a volume hangs.",
            panels.RATIO,
            Query(f"launcher_loaded_ratio{{{ITS}}}", WORKER),
        ),
        panels.rows(
            "Did each start find its compiled code?",
            "Repeated miss: the volume engine-cache-SLUG was removed, or the pin changed. none: nothing "
            "is compiled.",
            Scale("none"),
            ["slug", "instance", "outcome"],
            Query(f"launcher_compile_cache{{{ITS}}} == 1", "now"),
            width=panels.HALF,
            height=panels.NUMBERS_HIGH,
        ),
    ],
)

TROUBLE = Row(
    "Problems",
    [
        panels.bars(
            "What keeps workers from serving?",
            "0 is good. weights-missing, weights-corrupt: see the weights job. gpus-busy: the worker's "
            "log says who uses them. configuration, crash, hang: read the worker's log.",
            Scale(red=1, most=1),
            Query(f"max by (trouble) (launcher_trouble{{{ITS}}})", "{{trouble}}"),
            to=(MODEL,),
        ),
        panels.lines(
            "Starts, crashes and hangs since each launcher began",
            "Steps of crashes: vLLM ended by itself. Steps of hangs: it stood still and was killed. The "
            "worker's log has both.",
            Scale(),
            *(
                Query(f"launcher_{what}_total{{{ITS}}}", f"{WORKER} {what}")
                for what in ("starts", "crashes", "hangs")
            ),
        ),
        panels.lines(
            "Which share of each disk is free?",
            "Below a twentieth an alert fires. weights: run make prune. cache: remove the volume engine-"
            "cache-SLUG of slugs that are gone.",
            Scale("percentunit", most=1),
            Query(f"launcher_disk_free_bytes{{{ITS}}} / launcher_disk_bytes{{{ITS}}}", "{{slug}} {{disk}}"),
        ),
    ],
)

WEIGHTS = Row(
    "Downloads",
    [
        panels.states(
            "In which phase is each weights job?",
            "failed: docker compose logs SLUG-weights has the error line, and docs/operations.md explains"
            " its exit code. Empty: no job has run.",
            FETCHING,
            Query(coded("model_cache_phase", "slug", FETCHING, "phase", ITS), "{{slug}}"),
        ),
        panels.lines(
            "How fast do bytes arrive, or are they read back (bytes/s)?",
            "Zero for minutes while downloading: the link or the hub fails; the job retries and resumes. "
            "Set MODEL_CACHE_FALLBACKS for other sources.",
            Scale("Bps"),
            Query(f"max by (slug) (model_cache_rate_bytes_per_s{{{ITS}}})", "{{slug}}"),
            width=panels.HALF,
        ),
        panels.numbers(
            "How much of its phase has each job done?",
            "The last job of each slug within a day. If it is below 1 and does not move, see the panels "
            "above.",
            panels.RATIO,
            Query(f"{job('model_cache_bytes_done')} / ({job('model_cache_bytes_total')} > 0)", "{{slug}}"),
        ),
        panels.numbers(
            "How many bytes does it process?",
            "The size of the model; the volume must have five per cent more free space.",
            panels.BYTES,
            Query(job("model_cache_bytes_total"), "{{slug}}"),
        ),
        panels.numbers(
            "How many files are done?",
            "Of the last job of each slug within a day, in its last phase.",
            Scale(),
            Query(job("model_cache_files_done"), "{{slug}} done"),
            Query(job("model_cache_files_total"), "{{slug}} of"),
        ),
        panels.numbers(
            "How often was a transfer tried again?",
            "A few over hours mean a slow link. Many mean a proxy that cuts long transfers: set "
            "MODEL_CACHE_MOST_BYTES_PER_S or a fallback.",
            Scale(amber=10),
            Query(job("model_cache_retries_total"), "{{slug}}"),
        ),
    ],
)

STARTS = Board(
    "octet-starts",
    "Octet / Weights and start-up",
    "What is being downloaded, which phase each start is in, how long it takes, and what blocks it.",
    [STARTING, LOADING, TROUBLE, WEIGHTS],
    [panels.choice("slug", "label_values(launcher_phase, slug)")],
)
