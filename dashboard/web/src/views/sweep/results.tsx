import { useMemo } from "preact/hooks";

import type { SweepTrial } from "../../api/types";
import { duration, metric, number, percent } from "../../lib/format";
import { bestSoFar } from "../../lib/smooth";
import { useParameter } from "../../state/address";
import { Choice, Empty, Name, Panel, Said } from "../../ui/basic";
import { Plot, type Line } from "../../ui/plot";
import { axisOf, goodness } from "./columns";
import { Scatter } from "./scatter";
import type { SweepShown } from "./sweep";

/** What came of the sweep: the best so far, the front, what mattered. */
export function ResultsTab(shown: SweepShown) {
  return (
    <div class="two">
      <Best {...shown} />
      <ImportanceView {...shown} />
      {shown.sweep.objectives.length > 1 && <Front {...shown} />}
    </div>
  );
}

function Best({ sweep, objective, pick }: SweepShown) {
  const [over, setOver] = useParameter("over", "trials");
  const drawn = useMemo(() => {
    const found = objective?.objective;
    if (!found) return null;
    const points = sweep.trials
      .map((trial) => ({ trial, x: over === "time" ? hours(trial, sweep.submitted_at) : trial.number, y: number(trial.values?.[found.index]) }))
      .filter(({ x, y }) => Number.isFinite(x) && Number.isFinite(y))
      .sort((a, b) => a.x - b.x);
    const x = points.map((point) => point.x);
    const y = points.map((point) => point.y);
    const lines: Line[] = [
      { label: "each trial", color: "line1", x, y, dots: true },
      { label: "best so far", color: "line2", x, y: bestSoFar(y, found.goal), stairs: true },
    ];
    return { lines, numbers: points.map(({ trial }) => trial.number) };
  }, [sweep.trials, sweep.submitted_at, objective, over]);
  const label = objective?.label ?? "";
  return (
    <Panel
      title="Best so far"
      tools={
        <Choice
          label="Over"
          value={over}
          options={[
            { value: "trials", label: "trials" },
            { value: "time", label: "time" },
          ]}
          set={setOver}
        />
      }
    >
      {!drawn || drawn.numbers.length === 0 ? (
        <Empty>No trial has a result yet.</Empty>
      ) : (
        <Plot
          title={label}
          xLabel={over === "time" ? "time since the sweep began" : "trial"}
          lines={drawn.lines}
          height={280}
          format={(value) => metric(label, value)}
          {...(over === "time" ? { formatX: (value: number) => duration(value) } : {})}
          pick={(index) => pick(drawn.numbers[index] ?? null)}
        />
      )}
    </Panel>
  );
}

/** When a trial ended, since its sweep began. */
function hours(trial: SweepTrial, since: number): number {
  return trial.ended_at === null ? NaN : trial.ended_at - since;
}

function ImportanceView({ sweep, objective }: SweepShown) {
  const list = sweep.importance
    .filter((one) => one.objective === undefined || one.objective === objective?.label)
    .toSorted((a, b) => b.share - a.share);
  const most = Math.max(1e-9, ...list.map(({ share }) => share));
  return (
    <Panel title="Importance of parameters" note={objective ? `for ${objective.label}` : ""}>
      {list.length === 0 ? (
        <Empty>
          <Said>{sweep.importance_note || "Not known before enough trials were measured after the same length."}</Said>
        </Empty>
      ) : (
        <>
          <ul class="bars">
            {list.map(({ path, share }) => (
              <li key={path}>
                <span class="bar-name">
                  <Name>{path}</Name>
                </span>
                <span class="bar" aria-hidden="true">
                  <i style={{ width: `${(Math.max(0, share) / most) * 100}%` }} />
                </span>
                <span class="n">{percent(share)}</span>
              </li>
            ))}
          </ul>
          <p class="hint">The share of each parameter in what makes the best tenth of the trials differ from all (PED-ANOVA).</p>
        </>
      )}
    </Panel>
  );
}

function Front({ sweep, columns, trial, pick }: SweepShown) {
  const objectives = columns.filter((column) => column.objective);
  const [x, y] = objectives;
  const colors = useMemo(() => goodness(sweep.trials, y?.objective), [sweep.trials, y]);
  const front = useMemo(() => new Set(sweep.front), [sweep.front]);
  const axes = useMemo(() => x && y && { x: axisOf(x, sweep.trials), y: axisOf(y, sweep.trials) }, [x, y, sweep.trials]);
  if (!x || !y || !axes) return null;
  return (
    <Panel title="Pareto front" class="full" note={`${front.size} ${front.size === 1 ? "trial" : "trials"} that no other one beats`}>
      <Scatter
        trials={sweep.trials}
        x={{ column: x, axis: axes.x }}
        y={{ column: y, axis: axes.y }}
        colors={colors}
        contour={false}
        front={front}
        selected={trial}
        pick={pick}
      />
    </Panel>
  );
}
