import { useMemo, useState } from "preact/hooks";

import { family, type Member } from "../../lib/family";
import { count } from "../../lib/format";
import { ramp } from "../../lib/ramp";
import { linearTicks } from "../../lib/scale";
import { useTheme } from "../../state/theme";
import { Empty, Panel } from "../../ui/basic";
import { useWidth } from "../../ui/width";
import { goodness } from "./columns";
import type { SweepShown } from "./sweep";

const ROW = 20;
const HEIGHT = 480;
const LEFT = 64;
const RIGHT = 96;
const HEAD = 22;

/** Who came from whom: a line for each trial from where it was copied to where it got, over the budget. */
export function LineageTab({ sweep, objective, trial: selected, pick }: SweepShown) {
  const { dark } = useTheme();
  const [frame, width] = useWidth();
  const [top, setTop] = useState(0);
  const members = useMemo(() => family(sweep.trials), [sweep.trials]);
  const good = useMemo(() => {
    const of = goodness(sweep.trials, objective?.objective);
    return new Map(sweep.trials.map((trial, i) => [trial.number, of[i] ?? null]));
  }, [sweep.trials, objective]);
  const most = useMemo(() => Math.max(1, ...sweep.trials.map(({ budget }) => budget)), [sweep.trials]);
  if (members.length === 0) return <Empty>No trial yet.</Empty>;
  const x = (budget: number) => LEFT + (budget / most) * Math.max(1, width - LEFT - RIGHT);
  const y = (row: number) => HEAD + row * ROW + ROW / 2;
  const first = Math.floor(top / ROW) - 2;
  const last = Math.ceil((top + HEIGHT) / ROW) + 2;
  const inSight = (member: Member) => {
    const rows = [member.row, member.parentRow ?? member.row];
    return Math.max(...rows) >= first && Math.min(...rows) <= last;
  };
  return (
    <Panel title="Lineage" note={`${count(members.length)} trials; a curve leads from the trial that was copied`}>
      <div
        ref={frame}
        class="lineage"
        style={{ maxHeight: `${HEIGHT}px` }}
        tabIndex={0}
        role="region"
        aria-label="Lineage"
        onScroll={(event) => setTop(event.currentTarget.scrollTop)}
      >
        <svg width={width} height={HEAD + members.length * ROW + 8} role="group" aria-label="Trials over the budget">
          {linearTicks(0, most, width > 600 ? 8 : 3).map((tick) => (
            <g key={tick} transform={`translate(${x(tick)} 0)`}>
              <line y1={HEAD} y2={HEAD + members.length * ROW} class="grid-line" />
              <text y={13} class="axis-text" text-anchor="middle">
                {count(tick)}
              </text>
            </g>
          ))}
          <text x={width - 4} y={13} class="axis-text" text-anchor="end">
            {sweep.unit ?? "budget"}
          </text>
          {members.filter(inSight).map((member) => {
            const { trial, row, from, parentRow } = member;
            const goodHere = good.get(trial.number) ?? null;
            const stroke = goodHere === null ? "var(--muted)" : ramp(goodHere, dark);
            const bend = Math.max(6, Math.min(18, x(from) - LEFT));
            return (
              <g
                key={trial.number}
                class={`family ${trial.number === selected ? "chosen" : ""}`}
                onClick={() => pick(trial.number)}
              >
                <rect
                  x={1}
                  y={y(row) - ROW / 2 + 1}
                  width={Math.max(0, width - 2)}
                  height={ROW - 2}
                  class="family-row"
                  role="button"
                  tabindex={0}
                  aria-label={`Trial ${trial.number}, ${trial.state}${trial.parent ? `, copied from trial ${trial.parent.trial} at ${trial.parent.budget}` : ""}`}
                  onKeyDown={(event) => {
                    if (event.key !== "Enter" && event.key !== " ") return;
                    event.preventDefault();
                    pick(trial.number);
                  }}
                />
                {parentRow !== null && (
                  <path
                    class="family-link"
                    d={`M ${x(from) - bend} ${y(parentRow)} C ${x(from)} ${y(parentRow)}, ${x(from) - bend} ${y(row)}, ${x(from)} ${y(row)}`}
                  />
                )}
                <line x1={x(from)} x2={x(Math.max(trial.budget, from))} y1={y(row)} y2={y(row)} stroke={stroke} class="family-line" />
                <circle cx={x(Math.max(trial.budget, from))} cy={y(row)} r={4} fill={stroke} />
                <text x={LEFT - 10} y={y(row) + 4} class="axis-text" text-anchor="end">
                  {trial.number}
                </text>
                <text x={x(Math.max(trial.budget, from)) + 9} y={y(row) + 4} class="axis-text">
                  {objective ? objective.show(objective.value(trial)) : ""}
                </text>
              </g>
            );
          })}
        </svg>
      </div>
    </Panel>
  );
}
