"""How all reports look, in light and in dark, on a screen of any width; on paper they are light."""

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
  Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; -webkit-text-size-adjust: 100%; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 48px; display: grid; gap: 16px;
  grid-template-columns: minmax(0, 1fr); }
h1 { font-size: 26px; line-height: 1.2; margin: 0; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 8px; } h3 { font-size: 14px; margin: 0 0 2px; overflow-wrap: anywhere; }
p { margin: 0; } p + p { margin-top: 8px; }
header p, .quiet, figcaption, .note-text { color: var(--quiet); }
.note-text { font-size: 13.5px; margin-top: 8px; max-width: 105ch; }
section, .card { background: var(--panel); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(215px, 1fr)); gap: 12px; }
.card p { font-size: 13.5px; color: var(--quiet); } .card .label { font-weight: 600; }
.card .figure { font-size: 30px; font-weight: 750; line-height: 1.25; color: var(--ink); letter-spacing: -.02em; }
.notice { background: var(--note); border: 1px solid var(--note-line); border-radius: 12px; padding: 12px 18px; }
.notice ul { margin: 4px 0 0; padding-left: 20px; overflow-wrap: anywhere; }
table { border-collapse: separate; border-spacing: 0; width: 100%; }
th, td { padding: 6px 0 6px 16px; border-top: 1px solid var(--line); text-align: right; white-space: nowrap; }
tr:first-child > * { border-top: 0; }
th { font-weight: 600; font-size: 13px; color: var(--quiet); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.facts td { text-align: left; white-space: normal; overflow-wrap: anywhere; }
.facts td:first-child { color: var(--quiet); width: 180px; white-space: nowrap; vertical-align: top; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(290px, 100%), 1fr)); gap: 14px; }
.plots .chart { max-width: 400px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font-size: 12px; fill: var(--quiet); }
.chart path, .chart polyline { fill: none; } .chart .grid { stroke: var(--line); }
.keys { margin-bottom: 6px; }
.key { display: inline-flex; align-items: center; gap: 6px; margin-right: 14px; font-size: 13px; color: var(--quiet); }
.key i { width: 18px; border-top: 3px solid var(--data); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 8px; background: #07090a; }
figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 3px; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
code { font: 13px ui-monospace, "SF Mono", Menlo, Consolas, monospace; overflow-wrap: anywhere; }
.wide { position: relative; overflow-x: auto; } .wide .chart { min-width: 960px; }
.wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--panel); }
@media (max-width: 1000px) {
  .wide:has(.chart)::before { content: "wider than this screen: scroll sideways →"; position: sticky; left: 0;
    color: var(--quiet); font-size: 12.5px; }
}
@media (max-width: 780px) {
  .wide:has(th:nth-child(4))::before { content: "wider than this screen: scroll sideways →"; position: sticky; left: 0;
    color: var(--quiet); font-size: 12.5px; }
  .wide th { white-space: normal; vertical-align: bottom; }
  .wide td:first-child, .wide th:first-child { white-space: normal; min-width: 96px; max-width: 40vw;
    overflow-wrap: anywhere; padding-right: 6px; }
  main { padding: 16px 10px 32px; } section, .card, .notice { padding: 12px; }
  .facts td { display: block; padding: 0; border: 0; } .facts td:first-child { padding-top: 8px; width: auto; }
}
"""
