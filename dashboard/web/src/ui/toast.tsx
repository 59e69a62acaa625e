import { useEffect, useState } from "preact/hooks";

/** So long a message stays, in milliseconds. */
const STAYS_MS = 5_000;

let show: (text: string) => void = () => {};

/** Says something at the edge of the page, to readers of the screen too. */
export function say(text: string): void {
  show(text);
}

/** Where it is said. */
export function Toasts() {
  const [texts, setTexts] = useState<{ id: number; text: string }[]>([]);
  useEffect(() => {
    let id = 0;
    show = (text) => {
      const mine = id++;
      setTexts((texts) => [...texts, { id: mine, text }]);
      setTimeout(() => setTexts((texts) => texts.filter((one) => one.id !== mine)), STAYS_MS);
    };
    return () => void (show = () => {});
  }, []);
  return (
    <div class="toasts" role="status" aria-live="polite">
      {texts.map(({ id, text }) => (
        <div key={id} class="toast">
          <bdi>{text}</bdi>
        </div>
      ))}
    </div>
  );
}
