import { useMemo } from "preact/hooks";

import { ramp } from "../../lib/ramp";
import { useParameter } from "../../state/address";
import { useTheme } from "../../state/theme";
import { Check, Choice, Empty, Panel } from "../../ui/basic";
import { axisOf, goodness, type Column } from "./columns";
import { Scatter } from "./scatter";
import type { SweepShown } from "./sweep";

/** Any two parameters, coloured by the objective. */
export function ParametersTab({ sweep, columns, objective, trial, pick }: SweepShown) {
  const { trials } = sweep;
  const { dark } = useTheme();
  const choices = columns.filter(({ group, id }) => group !== "Trial" || id === "budget" || id === "step" || id === "number");
  const [first, second] = mostImportant(sweep.importance.map(({ path }) => `p:${path}`), choices);
  const [xId, setX] = useParameter("px", first);
  const [yId, setY] = useParameter("py", second);
  const [contour, setContour] = useParameter("contour");
  const x = choices.find(({ id }) => id === xId) ?? choices[0];
  const y = choices.find(({ id }) => id === yId) ?? choices[1] ?? choices[0];
  const colors = useMemo(() => goodness(trials, objective?.objective), [trials, objective]);
  const axes = useMemo(() => x && y && { x: axisOf(x, trials), y: axisOf(y, trials) }, [x, y, trials]);
  if (!x || !y || !axes || trials.length === 0) return <Empty>No trial yet.</Empty>;
  const options = choices.map(({ id, label }) => ({ value: id, label }));
  return (
    <Panel
      title="Two parameters"
      tools={
        <>
          <Choice label="X" value={x.id} options={options} set={setX} />
          <Choice label="Y" value={y.id} options={options} set={setY} />
          <Check label="Contour" checked={contour === "1"} set={(checked) => setContour(checked ? "1" : "")} />
        </>
      }
    >
      <Scatter
        trials={trials}
        x={{ column: x, axis: axes.x }}
        y={{ column: y, axis: axes.y }}
        colors={colors}
        contour={contour === "1"}
        front={null}
        selected={trial}
        pick={pick}
      />
      {objective && (
        <p class="ramp-legend">
          <span>
            worse <bdi>{objective.label}</bdi>
          </span>
          <span aria-hidden="true" class="ramp">
            {Array.from({ length: 24 }, (_, i) => (
              <i key={i} style={{ background: ramp(i / 23, dark) }} />
            ))}
          </span>
          <span>better; trials without a result are hollow</span>
        </p>
      )}
    </Panel>
  );
}

/** The two parameters that matter most, or the first two. */
function mostImportant(paths: readonly string[], columns: readonly Column[]): [string, string] {
  const known = columns.filter(({ group }) => group === "Parameters").map(({ id }) => id);
  const order = [...paths.filter((id) => known.includes(id)), ...known, ...columns.map(({ id }) => id)];
  const [first = "", second = ""] = [...new Set(order)];
  return [first, second];
}
