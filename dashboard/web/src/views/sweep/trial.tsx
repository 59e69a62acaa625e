import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";

import { api } from "../../api/client";
import { useResource } from "../../api/resource";
import type { Decisions } from "../../api/types";
import { count, cut, metric, moment, parameter } from "../../lib/format";
import { comparePath, runPath } from "../../state/address";
import { Empty, Name, Problem, Said, State } from "../../ui/basic";
import type { SweepShown } from "./sweep";

/** One trial of a sweep, beside everything else: what it tries, what came of it, what was decided about it. */
export function TrialPanel({ sweep, number, pick }: SweepShown & { number: number }) {
  const trial = sweep.trials.find((one) => one.number === number);
  const { data, error } = useResource<Decisions>(trial ? api("sweeps", sweep.name, `/decisions?trial=${number}`) : null, {
    topic: `sweep:${sweep.name}`,
    gapMs: 3_000,
  });
  useEffect(() => {
    const keys = (event: KeyboardEvent) => {
      if (event.key === "Escape" && !document.querySelector("dialog[open]")) pick(null);
    };
    addEventListener("keydown", keys);
    return () => removeEventListener("keydown", keys);
  }, [pick]);
  return (
    <aside class="side" aria-label={`Trial ${number}`}>
      <header>
        <h2>Trial {number}</h2>
        {trial && <State state={trial.state} />}
        <button class="quiet" aria-label="Close" onClick={() => pick(null)}>
          ×
        </button>
      </header>
      {!trial ? (
        <Empty>This sweep has no trial {number}.</Empty>
      ) : (
        <>
          {trial.reason !== "" && (
            <p class="reason">
              <Said>{trial.reason}</Said>
            </p>
          )}
          <p class="side-links">
            <a class="button" href={runPath(trial.run)}>
              Open the run
            </a>
            {sweep.best && sweep.best.number !== number && (
              <a class="button" href={comparePath([trial.run, ...bestRun(sweep)])}>
                Compare with the best
              </a>
            )}
          </p>
          <dl class="pairs">
            {sweep.objectives.map(({ metric: name }, i) => (
              <Pair key={name} name={name} strong>
                {metric(name, trial.values?.[i])}
              </Pair>
            ))}
            <Pair name="budget">{count(trial.budget)}</Pair>
            <Pair name="step">{count(trial.step)}</Pair>
            <Pair name="started">{moment(trial.started_at)}</Pair>
            <Pair name="ended">{moment(trial.ended_at)}</Pair>
            {trial.parent && (
              <Pair name="parent">
                <button class="quiet link" onClick={() => trial.parent && pick(trial.parent.trial)}>
                  trial {trial.parent.trial}
                </button>{" "}
                at {count(trial.parent.budget)}
              </Pair>
            )}
          </dl>
          <h3>Parameters</h3>
          <dl class="pairs">
            {Object.entries(trial.parameters).map(([path, value]) => (
              <Pair key={path} name={path}>
                <bdi>{parameter(value)}</bdi>
              </Pair>
            ))}
          </dl>
          <h3>Metrics</h3>
          {Object.keys(trial.metrics).length === 0 ? (
            <Empty>Not evaluated yet.</Empty>
          ) : (
            <table>
              <thead>
                <tr>
                  <th scope="col">Metric</th>
                  <th scope="col" class="n">last</th>
                  <th scope="col" class="n">min</th>
                  <th scope="col" class="n">max</th>
                </tr>
              </thead>
              <tbody>
                {Object.entries(trial.metrics).map(([name, one]) => (
                  <tr key={name}>
                    <th scope="row">
                      <Name>{name}</Name>
                    </th>
                    <td class="n">{metric(name, one.last)}</td>
                    <td class="n">{metric(name, one.min)}</td>
                    <td class="n">{metric(name, one.max)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          <h3>Decisions</h3>
          {error && <Problem error={error} />}
          {data && data.decisions.length === 0 && <Empty>Nothing was decided about it yet.</Empty>}
          <ol class="side-decisions">
            {data?.decisions.map((one, i) => (
              <li key={i}>
                <bdi class="kind">{cut(one.kind, 40)}</bdi> {one.budget !== null && <span class="muted">at {count(one.budget)} {sweep.unit}</span>}
                <p>
                  <Said>{one.text}</Said>
                </p>
              </li>
            ))}
          </ol>
        </>
      )}
    </aside>
  );
}

function Pair(props: { name: string; strong?: boolean; children: ComponentChildren }) {
  return (
    <div>
      <dt>
        <Name>{props.name}</Name>
      </dt>
      <dd class={props.strong ? "strong" : ""}>{props.children}</dd>
    </div>
  );
}

function bestRun(sweep: SweepShown["sweep"]): string[] {
  return sweep.trials.filter((one) => one.number === sweep.best?.number).map((one) => one.run);
}
