/** What the coordinator says: the types of its HTTP interface, as the page reads them. */

/** A number; what JSON cannot write comes as a word, and what is not known as null. */
export type Num = number | "NaN" | "Infinity" | "-Infinity" | null;

/** Where a run or a sweep stands. */
export type RunState =
  | "waiting"
  | "forming"
  | "running"
  | "stopping"
  | "stopped"
  | "paused"
  | "pruned"
  | "completed"
  | "failed";

/** Where a trial stands, as its sweep sees it. */
export type TrialState = "training" | "paused" | "completed" | "pruned" | "failed";

export interface Worker {
  id: string;
  host: string;
  pid: number;
  device: string;
  connected: boolean;
  draining: boolean;
  run: string | null;
  rank: number | null;
  memory_bytes?: number | null;
  step_micros?: number | null;
  /** Of `step_micros`, what was spent waiting for data and for the other ranks. */
  outside_micros?: number | null;
  phases?: Phases | null;
}

/** What the phases of a step took on one rank, in microseconds. */
export interface Phases {
  data: number;
  passes: number;
  reduce: number;
  agree: number;
  update: number;
  report: number;
}

export interface RunSummary {
  name: string;
  sweep: string | null;
  state: RunState;
  reason: string;
  step: number;
  total_steps: number | null;
  workers: number;
  workers_wanted: number;
  priority: number;
  generation: number;
  failures: number;
  submitted_at: number;
  ended_at: number | null;
  loss: Num;
  eval_loss: Num;
  eval_accuracy: Num;
  samples_per_second: Num;
}

export interface Objective {
  metric: string;
  goal: "minimize" | "maximize";
}

export interface SweepSummary {
  name: string;
  state: RunState;
  reason: string;
  submitted_at: number;
  ended_at: number | null;
  priority: number;
  trials: Record<TrialState, number>;
  objectives: Objective[];
  best: { number: number; values: Num[] } | null;
}

export interface Cluster {
  now: number;
  version: string;
  workers: Worker[];
  runs: RunSummary[];
  sweeps: SweepSummary[];
  sinks: SinkStanding[];
}

/** Where figures go besides. */
export interface SinkStanding {
  sink: string;
  trouble: string | null;
  since: number | null;
}

/** How the store is doing. */
export interface StoreStanding {
  now: number;
  trouble: string | null;
  since: number | null;
}

export interface ClusterEvent {
  sequence: number;
  at: number;
  kind: string;
  run: string | null;
  worker: string | null;
  text: string;
}

export interface Events {
  events: ClusterEvent[];
  next: number | null;
}

export interface Measurement {
  step: number;
  loss: Num;
  accuracy: Num;
}

export interface Checkpoint {
  step: number;
  at: number | null;
  best: boolean;
  result: boolean;
  pinned: boolean;
  weights_sha256: string;
  manifest: string;
}

export interface Generation {
  generation: number;
  from_step: number;
  at: number;
  ended_at?: number | null;
  /** Their ids. */
  workers: string[];
}

/** Anything that JSON can say. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

export interface Run extends RunSummary {
  members: string[];
  measurements: Measurement[];
  checkpoints: Checkpoint[];
  spec: Json;
  data: { train_samples: number; total_steps: number } | null;
  generations: Generation[];
  goodput: { productive_micros: number; lost_micros: number; share: number } | null;
}

/** What was measured in each portion of steps. */
export interface Bucketed {
  min: Num[];
  max: Num[];
  last: Num[];
}

export interface Series {
  steps: number[];
  series: Partial<Record<string, Bucketed>>;
  rolled_back: { generation: number; steps: number[]; series: Partial<Record<string, Bucketed>> }[];
  total: number;
  version: number;
}

export interface LogLine {
  sequence: number;
  at: number;
  source: string;
  level: string;
  text: string;
}

export interface Log {
  lines: LogLine[];
  next: number | null;
  sources?: string[];
}

export interface LedgerEpoch {
  epoch: number;
  samples: number;
  read_once: number;
  replayed: number;
  pending: number;
}

export interface Ledger {
  epochs: LedgerEpoch[];
  audit: { ok: boolean; text: string[] } | null;
}

export interface Layer {
  name: string;
  shape: number[];
  parameters: number;
}

export interface Model {
  parameters: number;
  layers: Layer[];
}

/** When the inside of a model was looked at. */
export interface InspectedAt {
  step: number;
  generation: number;
  rolled_back: boolean;
  at: number;
}

export interface Inspections {
  inspections: InspectedAt[];
  tensors: { name: string; shape: number[] }[];
}

/** How values are spread: equally wide buckets from `low` to `high`. */
export interface Histogram {
  low: number;
  high: number;
  counts: number[];
  min: number;
  max: number;
  mean: number;
  std: number;
  zeros: number;
  non_finite: number;
}

export interface HistogramsAt extends InspectedAt {
  weights: Histogram;
  gradient: Histogram;
}

/** A tensor over time. */
export interface HistogramsOverTime {
  tensor: string;
  steps: HistogramsAt[];
}

export interface InspectedSample {
  label: number;
  width: number;
  height: number;
  channels: number;
  pixels: number[];
}

/** What a head looks at, in 65,535ths of the peak. */
export interface AttentionPattern {
  peak: number;
  cells: number[];
}

export interface AttentionLayer {
  name: string;
  heads: number;
  queries: number;
  keys: number;
  block: number;
  rows: number;
  columns: number;
  patterns: AttentionPattern[];
}

export interface Inspection extends InspectedAt {
  attention: { samples: InspectedSample[]; layers: AttentionLayer[] } | null;
}

/** A value of a parameter. */
export type Value = number | string | boolean | null;

export interface SpaceParameter {
  path: string;
  kind: string;
  low: Num;
  high: Num;
  choices: Value[] | null;
  condition: string | null;
}

export interface SweepTrial {
  number: number;
  run: string;
  state: TrialState;
  reason: string;
  parameters: Record<string, Value>;
  values: Num[] | null;
  budget: number;
  step: number;
  parent: { trial: number; budget: number } | null;
  metrics: Record<string, { last: Num; min: Num; max: Num }>;
  started_at: number | null;
  ended_at: number | null;
}

export interface Rung {
  budget: number;
  reached: number;
  promoted: number;
  stopped: number;
}

export interface Importance {
  path: string;
  share: number;
  objective?: string;
}

/** A sweep with all of its trials: `trials` is their list, `counts` how many there are in each state. */
export interface SweepDetail extends Omit<SweepSummary, "trials"> {
  counts: SweepSummary["trials"];
  /** What budgets count; null if nothing does. */
  unit?: string | null;
  spec: Json;
  space: SpaceParameter[];
  metrics: string[];
  trials: SweepTrial[];
  rungs: Rung[];
  importance: Importance[];
  importance_note?: string | null;
  front: number[];
  time_saved: { steps: number; full_steps?: number; seconds: number; full_seconds?: number } | null;
}

export interface Decision {
  trial: number;
  budget: number | null;
  kind: string;
  text: string;
}

export interface Decisions {
  decisions: Decision[];
}

/** What a message of the stream holds beside the version: what has changed, where that is small. */
export interface Change {
  version: number;
  run?: RunSummary;
  sweep?: SweepSummary;
  trials?: SweepTrial[];
}
