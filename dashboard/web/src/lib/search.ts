import type { SweepTrial } from "../api/types";
import { number } from "./format";

/** What a search of trials says: all of its parts must hold. */
export interface Search {
  matches: (trial: SweepTrial) => boolean;
  /** What could not be understood; empty if all was. */
  problem: string;
}

const COMPARISON = /^([^<>=!]+?)(<=|>=|!=|=|<|>)(.+)$/;

/**
 * Reads a search: words that the trial's state, reason, run or choices contain, and comparisons such as `lr<0.01`,
 * `depth=4`, `eval_loss.min<0.2` or `state=pruned`. A parameter or metric may be named by the end of its path.
 */
export function readSearch(text: string, known: readonly string[]): Search {
  const problems: string[] = [];
  const parts = text.split(/\s+/).filter((part) => part !== "");
  const tests = parts.map((part) => {
    const [, name, comparison, wanted] = COMPARISON.exec(part) ?? [];
    if (name === undefined || comparison === undefined || wanted === undefined) return word(part.toLowerCase());
    const path = resolve(name, known);
    if (path === null) problems.push(`nothing here is called ${name}`);
    return path === null ? () => true : compare(path, comparison, wanted);
  });
  return { matches: (trial) => tests.every((test) => test(trial)), problem: problems.join("; ") };
}

/** What trials have beside parameters and metrics. */
const OWN: Record<string, (trial: SweepTrial) => unknown> = {
  number: (trial) => trial.number,
  trial: (trial) => trial.number,
  state: (trial) => trial.state,
  step: (trial) => trial.step,
  budget: (trial) => trial.budget,
  parent: (trial) => trial.parent?.trial ?? null,
};

function resolve(name: string, known: readonly string[]): string | null {
  if (Object.hasOwn(OWN, name) || known.includes(name) || known.includes(name.replace(/\.(last|min|max)$/, ""))) return name;
  return known.find((path) => path.endsWith(`.${name}`)) ?? null;
}

function compare(path: string, comparison: string, wanted: string): (trial: SweepTrial) => boolean {
  const target = Number(wanted);
  return (trial) => {
    const value = valueOf(trial, path);
    if (value === undefined || value === null) return comparison === "!=";
    if (comparison === "=") return Number.isFinite(target) ? Number(value) === target : String(value) === wanted;
    if (comparison === "!=") return Number.isFinite(target) ? Number(value) !== target : String(value) !== wanted;
    const have = Number(value);
    if (comparison === "<") return have < target;
    if (comparison === "<=") return have <= target;
    return comparison === ">" ? have > target : have >= target;
  };
}

function word(wanted: string): (trial: SweepTrial) => boolean {
  return (trial) =>
    trial.state.includes(wanted) ||
    trial.run.toLowerCase().includes(wanted) ||
    trial.reason.toLowerCase().includes(wanted) ||
    Object.values(trial.parameters).some((value) => typeof value === "string" && value.toLowerCase().includes(wanted));
}

/** What a trial has under a name: one of its own, a parameter, or a metric with `.last`, `.min` or `.max`. */
export function valueOf(trial: SweepTrial, path: string): unknown {
  if (Object.hasOwn(OWN, path)) return OWN[path]?.(trial);
  if (Object.hasOwn(trial.parameters, path)) return trial.parameters[path];
  const dot = path.lastIndexOf(".");
  const which = path.slice(dot + 1);
  const summary = which === "last" || which === "min" || which === "max";
  const name = summary ? path.slice(0, dot) : path;
  const metric = Object.hasOwn(trial.metrics, name) ? trial.metrics[name] : undefined;
  return metric && number(metric[summary ? which : "last"]);
}
