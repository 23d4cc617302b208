// The page: its head, and the view that the address names.

import { render } from "preact";
import { useEffect, useMemo, useState } from "preact/hooks";
import "./page.css";
import { link } from "./address";
import { INDEX, loadIndex, scenesOf } from "./index";
import { bytesShown } from "./numbers";
import { Version } from "./store";
import { traffic } from "./traffic";
import { Page, useAddress, useArrivals, useLoaded, Waiting } from "./ui";
import { Overview } from "./views/overview";
import { SceneView } from "./views/scene";

function App() {
  const address = useAddress();
  const loaded = useLoaded(loadIndex, []);
  const index = loaded.value;
  const context = useMemo(
    () => index && { index, scenes: scenesOf(index), version: new Version(index, new URL(index.data, location.href)) },
    [index],
  );
  const title = index ? [address.name, index.attributes.title].filter(Boolean).join(" · ") : "Wavecity dataset";
  useEffect(() => {
    document.title = title;
  }, [title]);
  // Another view starts at its top.
  useEffect(() => window.scrollTo(0, 0), [address.view, address.name]);
  if (!context) return <Waiting of={loaded} what="the dataset" parts={[INDEX]} />;
  const scene = address.view === "scene" ? context.scenes.find(({ id }) => id === address.name) : undefined;
  const city = address.view === "city" ? address.name : (scene?.city ?? "");
  const user = address.query.get("user");
  const damaged = Object.entries(context.index.damaged);
  return (
    <Page.Provider value={{ ...context, address }}>
      <button type="button" class="skip" onClick={() => document.getElementById("content")?.focus()}>
        Skip to the content
      </button>
      <header>
        <nav aria-label="Where you are">
          <ol>
            <li>
              <a href={link(address, "world")}>World</a>
            </li>
            {city && (
              <li>
                <a href={link(address, "city", city)}>{city}</a>
              </li>
            )}
            {address.view === "scene" && (
              <li>
                <a href={link(address, "scene", address.name)}>{address.name}</a>
              </li>
            )}
            {address.view === "scene" && user !== null && <li aria-current="page">user {user}</li>}
          </ol>
        </nav>
        <Traffic />
        <Theme />
      </header>
      <main id="content" tabIndex={-1}>
        {damaged.length > 0 && (
          <p class="problem" role="alert">
            <strong>
              {damaged.length} file{damaged.length === 1 ? " is" : "s are"} damaged:
            </strong>{" "}
            {damaged
              .slice(0, 3)
              .map(([name, what]) => `${name} ${what}`)
              .join(", ")}
            {damaged.length > 3 && `, and ${damaged.length - 3} more`}. Copy the version again, or build it again.
          </p>
        )}
        {address.view === "scene" ? <SceneView key={address.name} scene={scene} /> : <Overview city={city} />}
      </main>
      <footer>
        <p>
          {context.index.attributes.attribution}. Coastlines: Natural Earth. Version {context.index.version},
          fingerprint <code>{context.index.attributes.fingerprint.slice(0, 12)}</code>
          {context.index.files.includes("card.html") && (
            <>
              {" · "}
              <a href={new URL("card.html", context.version.base).href}>dataset card</a>
            </>
          )}
          {" · "}
          <a href="LICENCES.txt">software in this page</a>
        </p>
      </footer>
    </Page.Provider>
  );
}

/** How much has come over the network, and whether more is coming. */
function Traffic() {
  useArrivals();
  return (
    <p class="traffic" data-busy={traffic.open > 0}>
      {traffic.open > 0 ? "loading … " : ""}
      {traffic.bytes > 0 && `${bytesShown(traffic.bytes)} of the dataset read`}
    </p>
  );
}

const THEMES = ["system", "light", "dark"];

function Theme() {
  const [theme, setTheme] = useState(() => localStorage.getItem("theme") ?? "system");
  useEffect(() => {
    if (theme === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    localStorage.setItem("theme", theme);
    window.dispatchEvent(new Event("themechange"));
  }, [theme]);
  return (
    <label class="choice theme">
      Colours{" "}
      <select value={theme} onChange={(event) => setTheme(event.currentTarget.value)}>
        {THEMES.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}

const page = document.getElementById("page") as HTMLElement;
page.replaceChildren(); // what stood there until this ran
render(<App />, page);
