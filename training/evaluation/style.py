"""How the evaluation's page looks, in light and in dark; on paper it is light."""

STYLE = """
:root { color-scheme: light; --ground: #eef0f2; --panel: #fff; --ink: #14181c; --quiet: #59636d; --line: #d5dade;
  --nfa: #1f6fb4; --likelihood: #c2570c; --note: #fff6dd; }
@media screen and (prefers-color-scheme: dark) { :root { color-scheme: dark; --ground: #0d1013; --panel: #171b1f;
  --ink: #edf0f2; --quiet: #9aa5af; --line: #2c333a; --nfa: #62b2f4; --likelihood: #ff9a52; --note: #2f2507; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font-variant-numeric: tabular-nums;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 20px 48px; display: grid; gap: 16px;
  grid-template-columns: minmax(0, 1fr); }
h1 { font-size: 26px; margin: 0; } h2 { font-size: 17px; margin: 0 0 8px; } h3 { font-size: 14px; margin: 18px 0 6px; }
p { margin: 0; } .quiet { color: var(--quiet); font-size: 13.5px; margin-top: 6px; max-width: 105ch; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 12px; padding: 16px 18px; }
.notice { background: var(--note); border-radius: 8px; padding: 8px 8px 8px 28px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: 5px 0 5px 16px; border-top: 1px solid var(--line); text-align: right; white-space: nowrap; }
tr:first-child > * { border-top: 0; }
th { font-size: 13px; line-height: 1.3; color: var(--quiet); white-space: normal; vertical-align: bottom; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th:first-child, td:first-child { padding-left: 0; position: sticky; left: 0; background: var(--panel); }
td a { color: inherit; text-decoration-color: var(--line); text-underline-offset: 3px; }
.mean td { font-weight: 650; padding-bottom: 16px; } section { scroll-margin-top: 12px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 14px; margin-top: 6px; }
.chart { display: block; width: 100%; height: auto; } .chart text { font-size: 11px; fill: var(--quiet); }
.chart path, .chart polyline { fill: none; } .chart .grid { stroke: var(--line); }
.chart polyline { stroke-width: 2.2; }
.chart .nfa { stroke: var(--nfa); } .chart .likelihood { stroke: var(--likelihood); }
.keys { margin-top: 10px; } .key { display: inline-flex; align-items: center; gap: 6px; margin-right: 14px;
  font-size: 13px; color: var(--quiet); }
.key i { width: 18px; border-top: 3px solid var(--nfa); } .key.likelihood i { border-color: var(--likelihood); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px; }
figure { margin: 0; } figure img { width: 100%; display: block; border-radius: 8px; }
figcaption { font-size: 12.5px; line-height: 1.4; margin-top: 3px; overflow-wrap: anywhere; }
"""
