import type { ComponentChildren } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError, post } from "../api/client";
import { Problem } from "./basic";
import { say } from "./toast";

/** A dialog over the page. The browser keeps the focus inside, gives it back, and closes it with Escape. */
export function Dialog(props: { title: string; close: () => void; wide?: boolean; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const before = document.activeElement;
    element.current?.showModal();
    return () => {
      if (before instanceof HTMLElement) before.focus();
    };
  }, []);
  return (
    <dialog
      ref={element}
      class={props.wide ? "wide" : ""}
      aria-label={props.title}
      onClose={props.close}
      onClick={(event) => {
        if (event.target === element.current) element.current?.close();
      }}
    >
      <div class="dialog-body">
        <h2>{props.title}</h2>
        {props.children}
      </div>
    </dialog>
  );
}

/** Something that can be done, once somebody has confirmed it. */
export interface Action {
  /** On the button that asks for it. */
  label: string;
  /** The question. */
  title: string;
  /** What will happen. */
  explains: ComponentChildren;
  /** On the button that does it. */
  confirm: string;
  /** Where it goes; given the number that was entered, where `asks` for one. */
  path: (entered: number) => string;
  /** Said afterwards. */
  done: string;
  /** Whether something ends by it. */
  ends?: boolean;
  /** A whole number to enter. */
  asks?: { label: string; value: number };
}

/** A button for an action, and its dialog. */
export function ActionButton({ action, after, small }: { action: Action; after?: () => void; small?: boolean }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button class={small ? "small" : ""} onClick={() => setOpen(true)}>
        {action.label}
      </button>
      {open && <Confirm action={action} close={() => setOpen(false)} after={after} />}
    </>
  );
}

function Confirm({ action, close, after }: { action: Action; close: () => void; after: (() => void) | undefined }) {
  const [entered, setEntered] = useState(String(action.asks?.value ?? 0));
  const [error, setError] = useState<ApiError | null>(null);
  const [busy, setBusy] = useState(false);
  const value = Number(entered);
  const valid = entered.trim() !== "" && Number.isSafeInteger(value);
  const act = async (event: Event) => {
    event.preventDefault();
    if (!valid || busy) return;
    setBusy(true);
    setError(null);
    try {
      await post(action.path(value));
      say(action.done);
      close();
      after?.();
    } catch (cause) {
      setError(cause instanceof ApiError ? cause : new ApiError(0, String(cause), null));
      setBusy(false);
    }
  };
  return (
    <Dialog title={action.title} close={close}>
      <form onSubmit={(event) => void act(event)}>
        <div class="explains">{action.explains}</div>
        {action.asks && (
          <label class="field">
            <span>{action.asks.label}</span>
            <input
              type="number"
              step={1}
              value={entered}
              autofocus
              aria-invalid={!valid}
              onInput={(event) => setEntered(event.currentTarget.value)}
            />
          </label>
        )}
        {error && <Problem error={error} />}
        <div class="dialog-buttons">
          <button type="button" onClick={close} autofocus={!action.asks}>
            Cancel
          </button>
          <button type="submit" class={action.ends ? "ends" : "primary"} disabled={!valid || busy}>
            {action.confirm}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

/** A button for a download, and a dialog that says what is in it. */
export function ExportButton({ path, file, holds }: { path: string; file: string; holds: string }) {
  const [open, setOpen] = useState(false);
  return (
    <>
      <button onClick={() => setOpen(true)}>Export CSV</button>
      {open && (
        <Dialog title="Export CSV" close={() => setOpen(false)}>
          <p class="explains">{holds}</p>
          <div class="dialog-buttons">
            <button type="button" onClick={() => setOpen(false)}>
              Cancel
            </button>
            <a class="button primary" href={path} download={file} onClick={() => setTimeout(() => setOpen(false))}>
              Download
            </a>
          </div>
        </Dialog>
      )}
    </>
  );
}
