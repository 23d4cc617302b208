// Pieces that all views share: address, loading, figures with their downloads, legends, code.

import * as Plot from "@observablehq/plot";
import type { ComponentChildren, RefObject } from "preact";
import { createContext } from "preact";
import { useContext, useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type Address, type Changes, changed, format, parse } from "./address";
import type { Category } from "./colours";
import type { Index, Scene } from "./index";
import { Link, numberOf } from "./links";
import { savePng, saveSvg } from "./pictures";
import type { Version } from "./store";
import { listeners as arrivals, shareOf } from "./traffic";

export interface Context {
  index: Index;
  scenes: Scene[];
  version: Version;
  address: Address;
}

export const Page = createContext<Context>(null as unknown as Context);
export const usePage = () => useContext(Page);

/** The links that the address names: those of the first base station unless it names another. */
export function useLink(): Link {
  const { version, index, address } = usePage();
  const number = numberOf(index, address.query.get("bs"));
  return useMemo(() => new Link(version, number), [version, number]);
}

const listeners = new Set<() => void>();
window.addEventListener("hashchange", () => {
  for (const listener of listeners) listener();
});

export function useAddress(): Address {
  const [address, setAddress] = useState(() => parse(location.hash));
  useEffect(() => {
    const listener = () => setAddress(parse(location.hash));
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return address;
}

/** Go to an address; with `replace` the back button does not come here again. */
export function go(hash: string, replace = false): void {
  if (!replace) {
    location.hash = hash;
    return;
  }
  history.replaceState(null, "", hash);
  for (const listener of listeners) listener();
}

export function change(changes: Changes, replace = false): void {
  const address = parse(location.hash);
  go(format({ ...address, query: changed(address.query, changes) }), replace);
}

export type Loaded<T> = { value?: T; error?: Error };

/** What a promise gives, anew whenever `keys` change. */
export function useLoaded<T>(load: () => Promise<T>, keys: unknown[]): Loaded<T> {
  const [state, setState] = useState<Loaded<T>>({});
  useEffect(() => {
    let current = true;
    setState({});
    load().then(
      (value) => current && setState({ value }),
      (error) => current && setState({ error: error instanceof Error ? error : new Error(String(error)) }),
    );
    return () => {
      current = false;
    };
  }, keys);
  return state;
}

/** What stands in place of something that is loading, or cannot be loaded. */
export function Waiting({ of, what, parts }: { of: Loaded<unknown>; what: string; parts?: string[] }) {
  if (of.error) {
    return (
      <p class="problem" role="alert">
        <strong>Cannot show {what}.</strong> {of.error.message}
      </p>
    );
  }
  return <Loading what={what} parts={parts} />;
}

/** What is loading, and how much of it is there; `parts` are all arrays or files that it is made of. */
export function Loading({ what, parts }: { what: string; parts?: string[] }) {
  useArrivals();
  const share = Math.floor(100 * shareOf(parts ?? []));
  return (
    <span class="waiting">
      <span role="status">Loading {what} …</span>
      {parts && (
        <>
          {" "}
          <progress max={100} value={share} aria-label={`Loading ${what}`} /> {share} %
        </>
      )}
    </span>
  );
}

/** Render anew when something has arrived. */
export function useArrivals(): void {
  const [, setCount] = useState(0);
  useEffect(() => {
    let asked = 0;
    const listener = () => {
      // Many pieces arrive in one frame.
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        setCount((count) => count + 1);
      });
    };
    arrivals.add(listener);
    return () => {
      cancelAnimationFrame(asked);
      arrivals.delete(listener);
    };
  }, []);
}

/** Level of the heading of a card: cards stand below the page's heading, those of a user below the user's. */
export const Level = createContext<"h2" | "h3">("h2");

/** A card with a title and, where it holds a drawing, its downloads. */
export function Card(props: {
  title: string;
  note?: ComponentChildren;
  name?: string;
  /** As wide as the page, or as two cards. */
  wide?: boolean;
  double?: boolean;
  children: ComponentChildren;
}) {
  const { index } = usePage();
  const Heading = useContext(Level);
  const card = useRef<HTMLElement>(null);
  const keep = (saver: typeof saveSvg | typeof savePng) => () => {
    const svgs = [...(card.current?.querySelectorAll<SVGSVGElement>("svg.drawing, .drawing svg") ?? [])];
    if (svgs.length && props.name) void saver(svgs, props.name, index.attributes.attribution);
  };
  return (
    <figure class={`card ${props.wide ? "wide" : ""} ${props.double ? "double" : ""}`} ref={card}>
      <figcaption>
        <Heading>{props.title}</Heading>
        {props.name && (
          <span class="tools">
            <button type="button" onClick={keep(saveSvg)} aria-label={`Download ${props.title} as SVG`}>
              SVG
            </button>
            <button type="button" onClick={keep(savePng)} aria-label={`Download ${props.title} as PNG`}>
              PNG
            </button>
          </span>
        )}
      </figcaption>
      {props.children}
      {props.note && <p class="note">{props.note}</p>}
    </figure>
  );
}

/** Width of an element, followed. */
export function useWidth<T extends HTMLElement>(): [RefObject<T | null>, number] {
  const element = useRef<T>(null);
  const [width, setWidth] = useState(0);
  useLayoutEffect(() => {
    const node = element.current;
    if (!node) return;
    const observer = new ResizeObserver(() => setWidth(Math.floor(node.clientWidth)));
    observer.observe(node);
    setWidth(Math.floor(node.clientWidth));
    return () => observer.disconnect();
  }, []);
  return [element, width];
}

/** A plot of Observable Plot, as wide as there is room. */
export function Chart({
  make,
  keys,
  label,
}: {
  make: (width: number) => Plot.PlotOptions;
  keys: unknown[];
  label: string;
}) {
  const [element, width] = useWidth<HTMLDivElement>();
  useLayoutEffect(() => {
    if (!width || !element.current) return;
    const options = make(width);
    const plot = Plot.plot({ style: { background: "none", fontSize: "12px" }, ariaLabel: label, width, ...options });
    element.current.replaceChildren(plot);
    return () => plot.remove();
  }, [width, ...keys]);
  return <div class="drawing" ref={element} />;
}

export function Legend({ entries }: { entries: (Category & { shape?: string })[] }) {
  return (
    <ul class="legend">
      {entries.map(({ colour, label, shape = "■" }) => (
        <li key={label}>
          <span style={{ color: colour }} aria-hidden="true">
            {shape}
          </span>{" "}
          {label}
        </li>
      ))}
    </ul>
  );
}

/** A continuous scale of colours with its ends. */
export function Ramp(props: { colour: (share: number) => string; low: string; high: string; label: string }) {
  const stops = Array.from({ length: 11 }, (_, i) => props.colour(i / 10)).join(",");
  return (
    <p class="ramp">
      <span>{props.label}</span> <span>{props.low}</span>
      <span class="bar" style={{ background: `linear-gradient(to right, ${stops})` }} aria-hidden="true" />
      <span>{props.high}</span>
    </p>
  );
}

/** Python lines for what is shown, to copy. */
export function Code({ of, xarray, torch }: { of: string; xarray: string; torch?: string }) {
  const [copied, setCopied] = useState("");
  const copy = (name: string, text: string) => async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(name);
    } catch {
      setCopied("not allowed here: select the lines and copy them");
    }
  };
  const blocks = [["xarray", xarray] as const, ...(torch ? [["torch", torch] as const] : [])];
  return (
    <details class="code">
      <summary>Copy code for {of}</summary>
      {blocks.map(([name, text]) => (
        <div key={name}>
          <p>
            <strong>{name}</strong>{" "}
            <button type="button" onClick={copy(name, text)}>
              Copy
            </button>{" "}
            <span role="status">{copied === name ? "copied" : ""}</span>
          </p>
          <pre data-code={name}>{text}</pre>
        </div>
      ))}
      {copied && !blocks.some(([name]) => name === copied) && <p role="status">{copied}</p>}
    </details>
  );
}

export function Choice(props: {
  label: string;
  value: string;
  options: [string, string][];
  onChange: (value: string) => void;
}) {
  return (
    <label class="choice">
      {props.label}{" "}
      <select value={props.value} onChange={(event) => props.onChange(event.currentTarget.value)}>
        {props.options.map(([value, label]) => (
          <option key={value} value={value}>
            {label}
          </option>
        ))}
      </select>
    </label>
  );
}
