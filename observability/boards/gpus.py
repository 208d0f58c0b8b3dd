"""GPUs: each card's use, memory, power, heat, links and errors, as DCGM's exporter tells them."""

from observability.boards import panels
from observability.boards.fleet import MODEL
from observability.boards.panels import Board, Query, Row, Scale

CARDS, CARD = 'gpu=~"$gpu"', "GPU {{gpu}}"

HEALTH = Row(
    "Are all cards well?",
    [
        panels.numbers(
            "How many GPUs does the host show?",
            "Fewer than it has: one fell off the bus. nvidia-smi and the kernel log on the host; often a "
            "reboot.",
            Scale(),
            Query("count by (Hostname) (DCGM_FI_DEV_GPU_TEMP)", "{{Hostname}}"),
            width=panels.THIRD,
        ),
        panels.numbers(
            "How many GPUs have memory that could not be set aside?",
            "Row remapping failed: the card must be replaced. Stop the slug that uses it, "
            "docs/operations.md, gpurowremapfailed.",
            Scale(red=1),
            Query("sum(DCGM_FI_DEV_ROW_REMAP_FAILURE)", "cards"),
            width=panels.THIRD,
        ),
        panels.numbers(
            "How many memory rows were remapped for errors that could not be corrected?",
            "One that grows: the card's memory fails. Move the slug, and run the vendor's diagnostics.",
            Scale(amber=1),
            Query("sum(DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS)", "rows"),
            width=panels.THIRD,
        ),
        panels.rows(
            "Which XID did each GPU report last?",
            "0 is none. 48, 63, 64, 74, 79, 94, 95 wake somebody; 13, 31 and 43 are a program's own fault: "
            "see the worker's log.",
            Scale("none", red=1),
            ["Hostname", "gpu", "modelName", "UUID"],
            Query(f"DCGM_FI_DEV_XID_ERRORS{{{CARDS}}}", "XID"),
            to=(MODEL,),
        ),
    ],
)

WORK = Row(
    "What they do",
    [
        panels.lines(
            "How busy is each GPU?",
            "One that rests while its neighbours work: a rank waits or hangs. All at rest with requests "
            "waiting: the engine stands still.",
            Scale("percent", most=100),
            Query(f"DCGM_FI_DEV_GPU_UTIL{{{CARDS}}}", CARD),
            to=(MODEL,),
        ),
        panels.lines(
            "How much of its memory is taken?",
            "vLLM takes its share at once and keeps it. More than that: a program beside it; nvidia-smi on "
            "the host names it.",
            panels.RATIO,
            Query(
                f"DCGM_FI_DEV_FB_USED{{{CARDS}}} / (DCGM_FI_DEV_FB_USED{{{CARDS}}} + DCGM_FI_DEV_FB_FREE{{{CARDS}}})",
                CARD,
            ),
        ),
        panels.lines(
            "NVLink traffic of each GPU (bytes/s)",
            "Flat on one card while others talk: its links are down, and everything waits for it. "
            "nvidia-smi nvlink -s on the host.",
            Scale("Bps"),
            Query(f"DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL{{{CARDS}}} * 1048576", CARD),
        ),
    ],
)

BODY = Row(
    "Heat, power, clocks",
    [
        panels.lines(
            "Temperature of each GPU (°C)",
            "Above 87 it slows down: air, fans, the room. One alone: dust, or a fan of its own.",
            Scale("celsius", amber=80, red=panels.TARGETS.gpu_celsius),
            Query(f"DCGM_FI_DEV_GPU_TEMP{{{CARDS}}}", CARD),
        ),
        panels.lines(
            "Temperature of each GPU's memory (°C)",
            "Above 95 it slows down: the same as for the GPU.",
            Scale("celsius", amber=88, red=panels.TARGETS.gpu_memory_celsius),
            Query(f"DCGM_FI_DEV_MEMORY_TEMP{{{CARDS}}}", CARD),
        ),
        panels.lines(
            "Power of each GPU (W)",
            "A card far below its neighbours at the same work is held back: look at its clock and heat.",
            Scale("watt"),
            Query(f"DCGM_FI_DEV_POWER_USAGE{{{CARDS}}}", CARD),
        ),
        panels.lines(
            "Clock of each GPU (Hz)",
            "One that drops under load is throttled: heat, or the power limit. nvidia-smi -q -d PERFORMANCE "
            "says which.",
            Scale("hertz"),
            Query(f"DCGM_FI_DEV_SM_CLOCK{{{CARDS}}} * 1e6", CARD),
        ),
        panels.lines(
            "PCIe packets sent again (a second)",
            "More than a few: a bad riser, cable or slot. Loading weights is slow there first.",
            Scale("ops", amber=1),
            Query(f"rate(DCGM_FI_DEV_PCIE_REPLAY_COUNTER{{{CARDS}}}[$__rate_interval])", CARD),
        ),
        panels.lines(
            "Memory left on each GPU (bytes)",
            "Little is right while a worker runs. Much, with a worker that runs: it does not use this card.",
            Scale("bytes"),
            Query(f"DCGM_FI_DEV_FB_FREE{{{CARDS}}} * 1048576", CARD),
        ),
    ],
)

GPUS = Board(
    "octet-gpus",
    "Octet / GPUs",
    "Each card's use, memory, power, heat, links and errors.",
    [HEALTH, WORK, BODY],
    [panels.choice("gpu", "label_values(DCGM_FI_DEV_GPU_TEMP, gpu)")],
)
