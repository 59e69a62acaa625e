/** Asking the coordinator, and telling it. */

/** What the coordinator refused, or that it did not answer (`status` 0). */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly hint: string | null,
  ) {
    super(message);
  }
}

/** A request that takes longer has failed. */
const TIMEOUT_MS = 30_000;

async function send(path: string, init: RequestInit, cancel?: AbortSignal): Promise<unknown> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const signal = cancel ? AbortSignal.any([timeout, cancel]) : timeout;
  let response: Response;
  let text: string;
  try {
    response = await fetch(path, { ...init, signal });
    text = await response.text();
  } catch (cause) {
    if (cancel?.aborted) throw cause;
    throw new ApiError(0, "the coordinator does not answer", "Check that it runs: phalanx status");
  }
  const body = parsed(text);
  if (response.ok && body !== undefined) return body;
  const { error, hint } = (body ?? {}) as { error?: unknown; hint?: unknown };
  const message = typeof error === "string" ? error : `the coordinator answered with status ${response.status}`;
  throw new ApiError(response.status, message, typeof hint === "string" ? hint : null);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** Asks. */
export async function get<T>(path: string, cancel?: AbortSignal): Promise<T> {
  return (await send(path, { headers: { Accept: "application/json" } }, cancel)) as T;
}

/** Tells. The header keeps forms on other people's pages from doing it. */
export async function post(path: string): Promise<void> {
  await send(path, { method: "POST", headers: { "X-Phalanx": "1" } });
}

/** The path of something named below /api/v1. */
export function api(kind: "runs" | "sweeps" | "workers", name: string, rest = ""): string {
  return `/api/v1/${kind}/${encodeURIComponent(name)}${rest}`;
}
