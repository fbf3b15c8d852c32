"""How the latency report looks: the calibration report's style, and what its plots add."""

from uflow_edge.calibration.report.style import STYLE as _COMMON

STYLE = (
    _COMMON
    + """
:root { --s0: #8796a5; --s1: #5fb0d9; --s2: #2f9e8f; --s3: #1f6fb4; --s4: #7b8fd1; --s5: #c9862b; --s6: #8d5fb8; }
.stage0 { fill: var(--s0); background: var(--s0); } .stage1 { fill: var(--s1); background: var(--s1); }
.stage2 { fill: var(--s2); background: var(--s2); } .stage3 { fill: var(--s3); background: var(--s3); }
.stage4 { fill: var(--s4); background: var(--s4); } .stage5 { fill: var(--s5); background: var(--s5); }
.stage6 { fill: var(--s6); background: var(--s6); }
.key i[class^=stage] { width: 14px; height: 14px; border: 0; border-radius: 3px; }
.chart .name { font-size: 12.5px; fill: var(--ink); } .chart .value { font-size: 12.5px; fill: var(--ink); }
.chart circle { fill: var(--data); opacity: .55; }
.chart .box { fill: var(--s5); opacity: .35; }
.chart .median { stroke: var(--ink); stroke-width: 2.5; } .chart .tail { stroke: var(--bad); stroke-width: 1.5; }
.chart .series { stroke: var(--data); stroke-width: 1.6; }
.stages td:nth-child(2), .stages th:nth-child(2), .compared td:nth-child(2), .compared th:nth-child(2),
.texts td, .texts th { text-align: left; }
.compared th, .compared td { padding: 4px 0 4px 12px; font-size: 13px; }
.compared th:first-child, .compared td:first-child { padding-left: 0; }
.texts td, .texts th { white-space: normal; }
.texts td { vertical-align: top; } .texts td:first-child { min-width: 110px; }
.stages tr:has(td:first-child:not(:empty)) > * { border-top: 2px solid var(--line); }
.stages td:first-child, .stages th:first-child { font-weight: 600; }
summary { cursor: pointer; color: var(--quiet); margin: 10px 0 6px; font-size: 13.5px; }
ul { margin: 6px 0 10px; padding-left: 20px; }
"""
)
