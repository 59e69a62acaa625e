import type { ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";

import { retryNow, useConnection } from "../api/live";
import { useResource } from "../api/resource";
import type { StoreStanding } from "../api/types";
import { moment } from "../lib/format";
import { useTheme, type Theme } from "../state/theme";
import { Said } from "./basic";
import { Toasts } from "./toast";

/** So long a connection may be away before the page says so: a change of views takes less. */
const PATIENCE_MS = 800;

/** What is around every view. */
export function Frame({ children }: { children: ComponentChildren }) {
  return (
    <>
      <a class="skip" href="#main">
        Skip to content
      </a>
      <header class="top">
        <a class="brand" href="/">
          <Mark />
          <span>Phalanx</span>
        </a>
        <nav aria-label="Main">
          <a href="/">Cluster</a>
          <a href="/compare">Compare</a>
          <a href="/api/docs" target="_blank" rel="noreferrer">
            API
          </a>
        </nav>
        <Live />
        <ThemeChoice />
      </header>
      <Banner />
      <StoreBanner />
      <main id="main" tabIndex={-1}>
        {children}
      </main>
      <Toasts />
    </>
  );
}

function Mark() {
  return (
    <svg width="22" height="22" viewBox="0 0 24 24" aria-hidden="true">
      <rect width="24" height="24" rx="5" fill="#2c5fd8" />
      <path d="M6 18V8l3-3v13zm5 0V8l3-3v13zm5 0V8l3-3v13z" fill="#fff" />
    </svg>
  );
}

function Live() {
  const { state } = useConnection();
  const text = { connecting: "connecting", open: "live", lost: "offline" }[state];
  return <span class={`live live-${state}`}>{text}</span>;
}

function ThemeChoice() {
  const { theme, set } = useTheme();
  const next: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };
  const sign = { system: "◐", light: "☀", dark: "☾" }[theme];
  return (
    <button class="quiet theme" onClick={() => set(next[theme])} aria-label={`Colours: ${theme}`} title={`Colours: ${theme}`}>
      <span aria-hidden="true">{sign}</span>
    </button>
  );
}

/** Says that nothing becomes durable, and what to do. */
function StoreBanner() {
  const { data } = useResource<StoreStanding>("/api/v1/store", { topic: "store" });
  if (!data?.trouble) return null;
  return (
    <div class="banner" role="alert">
      <span>
        Nothing is saved{data.since !== null && <> since {moment(data.since)}</>}: <Said>{data.trouble}</Said>. Workers go on, and
        nothing is lost; see whether the coordinator's disk is full.
      </span>
    </div>
  );
}

/** Says that the page is not live, and when it tries again. */
function Banner() {
  const connection = useConnection();
  const [now, setNow] = useState(Date.now());
  const [since, setSince] = useState<number | null>(null);
  useEffect(() => {
    if (connection.state === "open") {
      setSince(null);
      return;
    }
    if (connection.state !== "lost") return;
    setSince((since) => since ?? Date.now());
    setNow(Date.now());
    const timer = setInterval(() => setNow(Date.now()), 500);
    return () => clearInterval(timer);
  }, [connection]);
  if (connection.state !== "lost" || since === null || now - since < PATIENCE_MS) return null;
  const wait = Math.max(0, Math.ceil((connection.retryAt - now) / 1000));
  return (
    <div class="banner" role="alert">
      <span>Connection to the coordinator lost. What you see may be old. Next try in {wait} s.</span>
      <button onClick={retryNow}>Try now</button>
    </div>
  );
}
