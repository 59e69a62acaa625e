import type { ComponentChildren, TargetedKeyboardEvent } from "preact";

import type { ApiError } from "../api/client";
import type { RunState, TrialState } from "../api/types";
import { cut, NAME_MAX, SENTENCE_MAX } from "../lib/format";
import { useParameter } from "../state/address";

/** A text that somebody else chose: cut where it is too long, and without effect on the direction of what is around it. */
export function Name({ children, title }: { children: string; title?: string }) {
  return (
    <bdi class="name" title={cut(title ?? children, SENTENCE_MAX)}>
      {cut(children, NAME_MAX)}
    </bdi>
  );
}

/** A sentence that somebody else chose: isolated, and wrapped where it is too long. */
export function Said({ children }: { children: string }) {
  return <bdi class="said">{cut(children, SENTENCE_MAX)}</bdi>;
}

const MEANING: Record<RunState | TrialState, string> = {
  waiting: "No group yet",
  forming: "A group is connecting",
  running: "Steps are being made",
  training: "It trains, or waits for workers",
  stopping: "Told to stop, saving",
  stopped: "Stopped by a user; can be resumed",
  paused: "At rest; may be taken up again",
  pruned: "Stopped early by its sweep",
  completed: "Done",
  failed: "Cannot go on; can be resumed from its last checkpoint",
};

/** Where something stands, in a word and a colour. */
export function State({ state }: { state: RunState | TrialState }) {
  return (
    <span class={`state state-${state}`} title={MEANING[state]}>
      {state}
    </span>
  );
}

/** A part of a view with a heading. */
export function Panel(props: {
  title: string;
  note?: ComponentChildren;
  tools?: ComponentChildren;
  class?: string;
  children: ComponentChildren;
}) {
  return (
    <section class={`panel ${props.class ?? ""}`} aria-label={props.title}>
      <header class="panel-head">
        <h2>{props.title}</h2>
        {props.note !== undefined && <bdi class="note">{props.note}</bdi>}
        {props.tools !== undefined && <div class="tools">{props.tools}</div>}
      </header>
      {props.children}
    </section>
  );
}

/** A number that matters, with its name. */
export function Stat({ label, children, title }: { label: string; children: ComponentChildren; title?: string }) {
  return (
    <div class="stat" title={title}>
      <dt>
        <bdi>{cut(label, NAME_MAX)}</bdi>
      </dt>
      <dd>{children}</dd>
    </div>
  );
}

/** What stands where there is nothing yet: what to do. */
export function Empty({ children }: { children: ComponentChildren }) {
  return <p class="empty">{children}</p>;
}

/** A command to type. */
export function Command({ children }: { children: string }) {
  return <code class="command">{children}</code>;
}

/** What went wrong, and what to do. */
export function Problem({ error, retry }: { error: ApiError; retry?: () => void }) {
  return (
    <div class="problem" role="alert">
      <p>
        <Said>{error.message}</Said>
      </p>
      {error.hint !== null && (
        <p class="hint">
          <Said>{error.hint}</Said>
        </p>
      )}
      {retry && <button onClick={retry}>Try again</button>}
    </div>
  );
}

/** What stands while the first answer is on its way. */
export function Loading() {
  return (
    <p class="loading" role="status">
      Loading …
    </p>
  );
}

/** How far something got. */
export function Progress({ value, of, label }: { value: number; of: number | null; label: string }) {
  const share = of !== null && of > 0 ? Math.min(1, value / of) : 0;
  return (
    <div
      class="progress"
      role="progressbar"
      aria-label={cut(label, NAME_MAX)}
      aria-valuemin={0}
      aria-valuemax={of ?? 0}
      aria-valuenow={value}
    >
      <div style={{ width: `${share * 100}%` }} />
    </div>
  );
}

/** The sections of a view; the address says which one is shown. */
export function Tabs({ tabs, usual }: { tabs: { id: string; label: string }[]; usual: string }) {
  const [tab, set] = useParameter("tab", usual);
  const move = (event: TargetedKeyboardEvent<HTMLDivElement>) => {
    const by = new Map([["ArrowRight", 1], ["ArrowLeft", -1]]).get(event.key);
    if (by === undefined) return;
    event.preventDefault();
    const at = tabs.findIndex(({ id }) => id === tab);
    const next = tabs[(at + by + tabs.length) % tabs.length];
    if (!next) return;
    set(next.id);
    event.currentTarget.querySelector<HTMLElement>(`#tab-${next.id}`)?.focus();
  };
  return (
    <div class="tabs" role="tablist" onKeyDown={move}>
      {tabs.map(({ id, label }) => (
        <button
          key={id}
          id={`tab-${id}`}
          role="tab"
          aria-selected={id === tab}
          aria-controls="tab-panel"
          tabIndex={id === tab ? 0 : -1}
          onClick={() => set(id)}
        >
          {label}
        </button>
      ))}
    </div>
  );
}

/** What the chosen section shows. */
export function TabPanel({ tab, children }: { tab: string; children: ComponentChildren }) {
  return (
    <div id="tab-panel" role="tabpanel" aria-labelledby={`tab-${tab}`} class="tab-panel">
      {children}
    </div>
  );
}

/** What is longer cannot be chosen. */
const OPTION_MAX = 1_000;

/** So many characters of an option are shown. */
const OPTION_SHOWN = 60;

/** A choice among a few. */
export function Choice<T extends string>(props: {
  label: string;
  value: T;
  options: readonly { value: T; label: string }[];
  set: (value: T) => void;
}) {
  return (
    <label class="field">
      <span>{props.label}</span>
      <select value={props.value} onChange={(event) => props.set(event.currentTarget.value as T)}>
        {props.options
          .filter(({ value }) => value.length <= OPTION_MAX)
          .map(({ value, label }) => (
            <option key={value} value={value}>
              {cut(label, OPTION_SHOWN)}
            </option>
          ))}
      </select>
    </label>
  );
}

/** Yes or no. */
export function Check(props: { label: string; checked: boolean; set: (checked: boolean) => void }) {
  return (
    <label class="check">
      <input type="checkbox" checked={props.checked} onChange={(event) => props.set(event.currentTarget.checked)} />
      <span>{props.label}</span>
    </label>
  );
}

/** A table that may be wider than the page: it is moved within its frame, also by the keyboard. */
export function TableFrame({ label, children }: { label: string; children: ComponentChildren }) {
  return (
    <div class="table-frame" role="region" aria-label={label} tabIndex={0}>
      {children}
    </div>
  );
}
