#pragma once
// The report's style sheet: one accent per meaning, light and dark, readable on a phone and on paper.
// Line colours are told apart with any colour vision (Okabe and Ito), and by their dashes.

namespace farskip {

inline constexpr const char* kReportStyle = R"(
:root{color-scheme:light dark;--ink:#1d2733;--soft:#5b6875;--line:#dfe4ea;--ground:#f6f8fa;--paper:#ffffff;
--good:#2b8a7e;--bad:#d7263d;--high:#d9480f;--low:#1c6fc9;--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b3508f;
--s4:#8a6d00;--s5:#4b5563}
@media (prefers-color-scheme:dark){:root{--ink:#e6ebf1;--soft:#9aa7b5;--line:#2c3743;--ground:#0d1218;--paper:#12181f;
--good:#45b8a8;--bad:#ff5a6e;--high:#ff8c4a;--low:#59a5f5;--s0:#56b4e9;--s1:#ff9248;--s2:#35c79a;--s3:#e28fc4;
--s4:#e6c229;--s5:#aab4bf}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:32px 20px 64px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 .3em}h2{font-size:1.3rem;margin:2em 0 .5em}
h3{font-size:1.05rem;margin:1.5em 0 .4em}
p{max-width:75ch;margin:.5em 0 1em}.subtitle,.note,figcaption{color:var(--soft)}.note,figcaption{font-size:.875rem}
.panel{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:14px;
margin:14px 0;overflow-x:auto}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,520px),1fr));gap:14px;margin:14px 0}
.charts .panel{margin:0}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:18px 0}
.figure{background:var(--paper);border:1px solid var(--line);border-radius:10px;padding:12px 16px}
.figure b{display:block;font-size:1.6rem;line-height:1.3;font-weight:650}
.figure span{color:var(--soft);font-size:.875rem}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;width:100%}
th,td{text-align:left;padding:6px 14px 6px 4px;border-bottom:1px solid var(--line);white-space:nowrap}
th{color:var(--soft);font-weight:600}tbody tr:last-child td{border-bottom:0}
.number{text-align:right}tr.group td{border-bottom:2px solid var(--soft)}
tbody tr:hover td{background:var(--ground)}
pre{margin:0;font:12px/1.45 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace}
summary{cursor:pointer;font-weight:600}details pre{margin-top:10px}
figure{margin:0}figcaption{margin-top:6px}
.chart{display:block;width:100%;height:auto;font-size:12px}.chart text{fill:var(--ink)}.chart .soft{fill:var(--soft)}
.chart .chart-title{font-size:14px;font-weight:600}.chart .grid{stroke:var(--line)}.chart .axis{stroke:var(--soft)}
.line{fill:none;stroke-width:2;stroke-linejoin:round}.point{fill-opacity:0}.point:hover{fill-opacity:1}
.mark:hover{stroke:var(--ink)}
.line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1);stroke-dasharray:7 3}
.line.s2{stroke:var(--s2);stroke-dasharray:2 3}
.line.s3{stroke:var(--s3);stroke-dasharray:9 3 2 3}.line.s4{stroke:var(--s4);stroke-dasharray:4 2}
.line.s5{stroke:var(--s5);stroke-dasharray:1 2}
.s0:is(.point,.mark){fill:var(--s0)}.s1:is(.point,.mark){fill:var(--s1)}.s2:is(.point,.mark){fill:var(--s2)}
.s3:is(.point,.mark){fill:var(--s3)}
.s4:is(.point,.mark){fill:var(--s4)}.s5:is(.point,.mark){fill:var(--s5)}
.high{fill:var(--high)}.low{fill:var(--low)}.cell:hover{stroke:var(--ink)}
.hidden-part{fill:var(--good)}.exposed-part{fill:var(--bad)}
.timeline svg{display:block;min-width:900px;width:100%;height:auto}
@media print{body{background:none}.panel,.figure{break-inside:avoid}}
)";

}  // namespace farskip
