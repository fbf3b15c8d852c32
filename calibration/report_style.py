"""How the calibration report looks, in light and in dark; on paper it is light."""

STYLE = """
:root {
  color-scheme: light; --ground: #eef0f2; --panel: #fff; --ink: #14181c; --quiet: #59636d; --line: #d5dade;
  --good: #00735c; --bad: #cf2a0b; --data: #1f6fb4; --data-quiet: #9aa5af; --band: #e0a52640; --limit: #b32408;
  --note: #fff6dd; --note-line: #c98a00;
}
@media screen and (prefers-color-scheme: dark) { :root {
  color-scheme: dark; --ground: #0d1013; --panel: #171b1f; --ink: #edf0f2; --quiet: #9aa5af; --line: #2c333a;
  --good: #35c4a2; --bad: #ff8a6b; --data: #62b2f4; --data-quiet: #6b7680; --band: #e0a5263d; --limit: #ff8a6b;
  --note: #2f2507; --note-line: #e0a526;
} }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 48px; display: grid; gap: 16px;
  grid-template-columns: minmax(0, 1fr); }
h1 { font-size: 26px; line-height: 1.2; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 0 0 8px; } h3 { font-size: 14px; margin: 0 0 2px; }
p { margin: 0; } p + p { margin-top: 8px; }
header p, .quiet, figcaption, .note-text { color: var(--quiet); }
.note-text { font-size: 13.5px; margin-top: 8px; max-width: 105ch; }
section, .card { background: var(--panel); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); gap: 12px; }
.card p { font-size: 13.5px; color: var(--quiet); } .card .label { font-weight: 600; }
.card .figure { font-size: 30px; font-weight: 750; line-height: 1.25; color: var(--ink); letter-spacing: -.02em; }
.notice { background: var(--note); border: 1px solid var(--note-line); border-radius: 12px; padding: 12px 18px; }
.notice ul { margin: 4px 0 0; padding-left: 20px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { padding: 6px 0 6px 16px; border-top: 1px solid var(--line); text-align: right; white-space: nowrap; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; font-size: 13px; color: var(--quiet); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.costs td:nth-child(2), .costs th:nth-child(2) { text-align: left; white-space: normal; min-width: 200px; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { color: var(--quiet); width: 180px; white-space: nowrap; vertical-align: top; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 12px; }
.plots .chart { max-width: 380px; }
.keys { margin-bottom: 6px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font-size: 11px; fill: var(--quiet); } .chart .label { font-size: 11.5px; }
.chart path, .chart polyline { fill: none; }
.chart .axis, .chart .tick { stroke: var(--quiet); } .chart .grid { stroke: var(--line); }
.chart .bar { fill: var(--data); } .chart .bar.above { fill: var(--bad); } .chart .band { fill: var(--band); }
.chart path.limit { stroke: var(--limit); stroke-width: 2; } .chart text.limit { fill: var(--limit); font-weight: 700; }
.chart path.zero { stroke: var(--ink); stroke-dasharray: 5 4; } .chart text.zero { fill: var(--ink); }
.chart .diagonal { stroke: var(--quiet); stroke-dasharray: 3 3; }
.chart .before { stroke: var(--data-quiet); stroke-width: 1.8; }
.chart .after { stroke: var(--data); stroke-width: 2.4; }
.key { display: inline-flex; align-items: center; gap: 6px; margin-right: 14px; font-size: 13px; color: var(--quiet); }
.key i { width: 18px; border-top: 3px solid var(--data); } .key.before i { border-color: var(--data-quiet); }
.key.diagonal i { border-top: 2px dashed var(--quiet); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 8px; background: #07090a; }
figcaption { font-size: 12.5px; margin-top: 3px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
figcaption b { color: var(--ink); }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
"""
