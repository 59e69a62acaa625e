import { useEffect, useState } from "preact/hooks";

/** Which colours somebody wants: those of the system, or one of the two. */
export type Theme = "system" | "light" | "dark";

const KEY = "phalanx.theme";
const system = matchMedia("(prefers-color-scheme: dark)");
/** What `system` said last. To ask it again between a change and its event would keep Chromium from sending the event. */
let systemIsDark = system.matches;
const listeners = new Set<() => void>();

function wanted(): Theme {
  const value = localStorage.getItem(KEY);
  return value === "light" || value === "dark" ? value : "system";
}

/** Whether the page is dark now. */
export function isDark(): boolean {
  const theme = wanted();
  return theme === "system" ? systemIsDark : theme === "dark";
}

function show(): void {
  document.documentElement.dataset["theme"] = isDark() ? "dark" : "light";
  for (const listener of listeners) listener();
}

/** Shows the colours that are wanted, now and when the system changes them. */
export function followTheme(): void {
  show();
  system.addEventListener("change", ({ matches }) => {
    systemIsDark = matches;
    show();
  });
}

/** The theme, and how to set it. `dark` tells those who draw on a canvas that they must do it again. */
export function useTheme(): { theme: Theme; dark: boolean; set: (theme: Theme) => void } {
  const [, redraw] = useState(0);
  useEffect(() => {
    const listener = () => redraw((n) => n + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  const set = (theme: Theme) => {
    if (theme === "system") localStorage.removeItem(KEY);
    else localStorage.setItem(KEY, theme);
    show();
  };
  return { theme: wanted(), dark: isDark(), set };
}

/** A colour of the style sheet, for a canvas. */
export function color(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
