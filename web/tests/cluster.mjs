// The pages in a real browser, against a real controller with a fleet of agents that are not
// there. Run by ./run.

import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

import { Controller, PASSWORD, USER } from "./controller.mjs";
import { Fleet, declaration } from "./fleet.mjs";

const CLUSTER = "edge-fra";
const DIRECTORS = ["d1", "d2", "d3", "d4"];
const SERVERS = ["10.1.0.11", "10.1.0.12", "10.1.0.13"];
const PAGE = `/clusters/${CLUSTER}`;
const AXE = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const SHOTS = fileURLToPath(new URL("../../target/screenshots", import.meta.url));

const { ISOPATHD, CHROMIUM } = process.env;
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const controller = new Controller(ISOPATHD);
let browser;
let fleet;
let state;

before(async () => {
  mkdirSync(SHOTS, { recursive: true });
  await controller.create(CLUSTER);
  await controller.start();
  await controller.api("operator")(
    "PUT",
    `/api/v1/clusters/${CLUSTER}`,
    declaration(DIRECTORS, SERVERS),
  );
  fleet = new Fleet(controller.api("agent"), CLUSTER, DIRECTORS, SERVERS);
  await fleet.start();
  browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
  await signIn();
});

after(async () => {
  fleet?.stop();
  await browser?.close();
  await controller.stop();
});

// Signs in once for all tests: sign-ins are limited to a few a minute.
async function signIn() {
  const { page, close } = await visit("/", { signedIn: false });
  assert.match(page.url(), /\/login$/, "the first page leads to the sign-in");
  await page.fill("#user", USER);
  await page.fill("#password", "not the password");
  await page.click("button[type=submit]");
  await page.getByRole("alert").getByText("The name or the password is wrong.").waitFor();
  assert.equal(await page.inputValue("#user"), USER, "the name is kept");
  await page.fill("#password", PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**${PAGE}`);
  state = await page.context().storageState();
  await close({ expected: /401/ });
}

// A new window on `path`. Closing it asserts that nothing went wrong in it: no errors on the
// console, but for those `expected`, and no request to anywhere else.
async function visit(path, options = {}) {
  const { signedIn = true, width = 1280, height = 900, ...others } = options;
  const context = await browser.newContext({
    viewport: { width, height },
    storageState: signedIn ? state : undefined,
    baseURL: controller.url,
    ...others,
  });
  const page = await context.newPage();
  const errors = [];
  const outside = [];
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(error.message));
  page.on("request", (request) => {
    if (!request.url().startsWith(controller.url)) outside.push(request.url());
  });
  await page.goto(path);
  const close = async ({ expected = /^$/ } = {}) => {
    await context.close();
    assert.deepEqual(outside, [], "requests to elsewhere");
    assert.deepEqual(errors.filter((error) => !expected.test(error)), [], "errors");
  };
  return { page, close };
}

const row = (page, director) => page.locator(`#director-${director}`);

// Drained by the API, so that a test starts from what it needs.
async function setAdmin(director, verb, body = {}) {
  const path = `/api/v1/clusters/${CLUSTER}/directors/${director}/${verb}`;
  await controller.api("operator")("POST", path, body);
}

async function undrained(page, director) {
  await row(page, director).getByRole("link", { name: `Drain ${director}` }).waitFor();
  await row(page, director).locator(".state .status.up").waitFor();
}

test("a report changes the page without loading it again", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  await page.evaluate(() => (globalThis.sameDocument = true));
  await page.locator("#topology summary").click();
  await page.locator("#act-d1").focus();
  const server = page.locator(`#services tr[id$="${SERVERS[0]}:80"]`);
  await server.locator(".state .status.up").waitFor();

  for (const director of fleet.directors) director.down.add(SERVERS[0]);
  const told = Date.now();
  await server.locator(".state .status.down").waitFor();
  const took = Date.now() - told;
  assert.ok(took < 5000, `it took ${took} ms`);
  await server.getByText("TCP refused").waitFor();

  for (const director of fleet.directors) director.down.clear();
  await server.locator(".state .status.up").waitFor();
  assert.equal(await page.evaluate(() => globalThis.sameDocument), true, "not loaded again");
  assert.equal(await page.evaluate(() => document.activeElement.id), "act-d1", "focus stays");
  assert.ok(await page.locator("#topology details").evaluate((d) => d.open), "open stays open");
  await close();
});

test("a director that would send clients elsewhere is told of, with since when", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#services .meta").getByText("same placement on d1, d2, d3 and d4").waitFor();
  // Of the same version as the expected one, since others are not compared.
  const [expected] = Object.values(fleet.director("d3").desired.digests);
  const found = expected.slice(0, 2) + "0".repeat(expected.length - 2);
  fleet.director("d3").digest = found;
  const problem = page.locator("#problems li", { hasText: "placement on director d3" });
  await problem.locator(".since time").waitFor();
  await problem.getByText(`digest ${found}, expected ${expected}`).waitFor();
  await page.locator("#services .meta").getByText("another on d3").waitFor();
  await row(page, "d3").getByText("Withdrawn", { exact: true }).waitFor();
  await page.locator("#events").getByText("differs: it would send clients").waitFor();
  await page.screenshot({ path: join(SHOTS, "differs-light-1280.png"), fullPage: true });

  fleet.director("d3").digest = null;
  await problem.waitFor({ state: "detached" });
  await page.locator("#events").getByText("differs no more").waitFor();
  await close();
});

test("an unwise declaration is a list of names until it is none", async () => {
  const { page, close } = await visit(PAGE);
  const put = (change) => {
    const declared = declaration(DIRECTORS, SERVERS);
    change(declared.service[0]);
    const path = `/api/v1/clusters/${CLUSTER}`;
    return controller.api("operator")("PUT", path, declared, { "if-match": "*" });
  };
  const warnings = page.locator("#warnings");
  assert.equal(await warnings.isVisible(), false, "there is nothing unwise");
  await put((service) => (service.real_server[0].upper_threshold = 1000));
  await warnings.getByText("thresholds-with-mh").waitFor();
  await warnings.getByText("/service/0/real_server").waitFor();
  await page.screenshot({ path: join(SHOTS, "unwise-light-1280.png"), fullPage: true });
  await page.evaluate(AXE);
  const found = await page.evaluate(() => globalThis.axe.run("#warnings"));
  assert.deepEqual(found.violations.map((violation) => violation.id), []);
  await put(() => {});
  await warnings.waitFor({ state: "hidden" });
  await close();
});

test("selected text is not touched while it is selected", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  const name = row(page, "d1").locator(".name");
  await name.selectText();
  const number = row(page, "d1").locator(".num").first();
  const before = await number.innerText();
  fleet.director("d1").active = 7000;
  // The verdict holds no selection, so it shows the change.
  await page.locator("#verdict").getByText("16,").waitFor();
  assert.equal(await number.innerText(), before);
  await page.evaluate(() => getSelection().removeAllRanges());
  await number.getByText("6,999").waitFor();
  fleet.director("d1").active = 3000;
  await close();
});

test("nothing on the page moves while values change", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  const moved = page.evaluate(
    () =>
      new Promise((resolve) => {
        let sum = 0;
        new PerformanceObserver((list) => {
          for (const entry of list.getEntries()) sum += entry.value;
        }).observe({ type: "layout-shift" });
        setTimeout(() => resolve(sum), 4000);
      }),
  );
  for (let n = 0; n < 12; n += 1) {
    for (const director of fleet.directors) director.active += 37;
    await sleep(250);
  }
  assert.equal(await moved, 0);
  await close();
});

test("a drain by click: the effect first, then its progress, then the way back", async () => {
  const { page, close } = await visit(PAGE);
  await row(page, "d2").getByRole("link", { name: "Drain d2" }).click();
  await page.getByText("stays on 3 of 4 directors: d1, d3 and d4").waitFor();
  await page.getByText("active connections here").waitFor();
  await page.getByLabel("Reason").fill("kernel <6.1> & more");
  await page.getByRole("button", { name: "Drain d2" }).click();
  await page.waitForURL(`**${PAGE}#director-d2`);
  await row(page, "d2").locator(".state .status.safe").waitFor();
  await row(page, "d2").getByText("kernel <6.1> & more").first().waitFor();
  await page.locator("#vips").getByText("d2: drained by an operator").waitFor();
  await row(page, "d2").getByRole("button", { name: "Undrain d2" }).click();
  await undrained(page, "d2");
  await close();
});

test("a drain by keyboard alone", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  await tabTo(page, "act-d3");
  await page.keyboard.press("Enter");
  await page.getByRole("heading", { name: "Drain d3?" }).waitFor();
  await tabTo(page, "reason");
  await page.keyboard.type("memory");
  await page.keyboard.press("Enter");
  await row(page, "d3").locator(".state .status.safe").waitFor();
  await tabTo(page, "act-d3");
  await page.keyboard.press("Enter");
  await undrained(page, "d3");
  await close();
});

async function tabTo(page, id) {
  for (let n = 0; n < 120; n += 1) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => {
      const { id, matches } = document.activeElement;
      return { id, ring: matches && document.activeElement.matches(":focus-visible") };
    });
    if (focused.id === id) {
      assert.ok(focused.ring, "what has the focus shows it");
      return;
    }
  }
  assert.fail(`#${id} cannot be reached by Tab`);
}

test("a drain elsewhere changes the button under the focus, which stays", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  await page.locator("#act-d4").focus();
  await setAdmin("d4", "drain", { reason: "elsewhere" });
  await row(page, "d4").getByRole("button", { name: "Undrain d4" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "act-d4");
  await setAdmin("d4", "undrain");
  await undrained(page, "d4");
  await close();
});

test("the last announcer is refused with what it takes to go on", async () => {
  for (const name of ["d2", "d3", "d4"]) await setAdmin(name, "drain");
  const { page, close } = await visit(PAGE);
  for (const name of ["d2", "d3", "d4"]) {
    await row(page, name).locator(".state .status.safe").waitFor();
  }
  await page.locator("#act-d1").click();
  await page.getByText("would be announced by no director").waitFor();
  await page.getByRole("alert").getByText("no other director is known to announce").waitFor();
  const button = page.getByRole("button", { name: "Drain d1" });
  await page.getByLabel("Reason").fill("the rack loses power");
  await button.click();
  assert.match(page.url(), /\/drain$/, "the browser wants the box ticked");
  await page.getByLabel("Override last_announcer").check();
  await button.click();
  await page.waitForURL(`**${PAGE}#director-d1`);
  await row(page, "d1").locator(".state .status.safe, .state .status.draining").waitFor();
  for (const name of DIRECTORS) await setAdmin(name, "undrain");
  for (const name of DIRECTORS) await undrained(page, name);
  await close();
});

test("without JavaScript every page is whole and every button works", async () => {
  const { page, close } = await visit(PAGE, { javaScriptEnabled: false });
  for (const id of ["verdict", "topology", "directors", "vips", "services", "events"]) {
    assert.ok(await page.locator(`#${id}`).isVisible(), id);
  }
  assert.equal(await page.locator("svg.topology .node").count(), 1 + 4 + 1 + 3);
  await page.locator("#act-d2").click();
  await page.getByRole("button", { name: "Drain d2" }).click();
  await page.waitForURL(`**${PAGE}#director-d2`);
  const undrain = page.getByRole("button", { name: "Undrain d2" });
  await undrain.waitFor();
  await undrain.click();
  await page.getByRole("link", { name: /^Drain d2/ }).waitFor();
  await close();
});

test("a silent agent's values stay and are called old", async () => {
  const { page, close } = await visit(PAGE);
  fleet.director("d4").silent = true;
  await row(page, "d4").getByText(/silent for/).waitFor();
  await row(page, "d4").getByText(/Values as of/).waitFor();
  assert.match(await row(page, "d4").innerText(), /3,/, "the last values stay");
  await shots("silent");
  fleet.director("d4").silent = false;
  await row(page, "d4").locator(".state .status.up").waitFor();
  await close();
});

test("every status has a glyph and a word", async () => {
  fleet.director("d3").down = new Set(SERVERS);
  const { page, close } = await visit(PAGE);
  await row(page, "d3").locator(".state .status:not(.up)").waitFor();
  const without = await page.locator(".status").evaluateAll((all) =>
    all
      .filter((status) => {
        const glyph = status.querySelector("svg use").getAttribute("href");
        return !status.textContent.trim() || !document.querySelector(glyph);
      })
      .map((status) => status.outerHTML),
  );
  assert.deepEqual(without, []);
  await close();
});

test("nothing scrolls sideways but the picture, and axe finds nothing, in both themes", async () => {
  const paths = [PAGE, "/clusters", `${PAGE}/directors/d2/drain`, "/clusters/no-such-cluster"];
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [320, 800, 1280]) {
      const looks = { colorScheme, width };
      const visits = paths.map((path) => fitsAndIsAccessible(path, looks));
      await Promise.all([...visits, fitsAndIsAccessible("/login", { ...looks, signedIn: false })]);
    }
  }
});

async function fitsAndIsAccessible(path, options) {
  const { page, close } = await visit(path, options);
  const where = `${path} ${options.colorScheme} ${options.width}`;
  const over = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  assert.equal(over, 0, `${where} scrolls sideways`);
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const found = violations.map(({ id, impact, nodes }) => ({
    id,
    impact,
    html: nodes.map((node) => node.html),
  }));
  assert.deepEqual(found, [], where);
  await close({ expected: /404/ });
}

test("forced colours and reduced motion render", async () => {
  const { page, close } = await visit(PAGE, { forcedColors: "active", reducedMotion: "reduce" });
  const stroke = await page
    .locator(".edges path")
    .first()
    .evaluate((path) => getComputedStyle(path).stroke);
  assert.notEqual(stroke, "none");
  await close();
});

test("screenshots", async () => {
  await shots("degraded");
  await shots("drain", `${PAGE}/directors/d2/drain`);
  fleet.director("d3").down.clear();
  await setAdmin("d2", "drain", { reason: "kernel update" });
  const { page, close } = await visit(PAGE);
  await row(page, "d2").locator(".state .status.safe").waitFor();
  await undrained(page, "d3");
  await close();
  await shots("drained");
  await setAdmin("d2", "undrain");
  const again = await visit(PAGE);
  await undrained(again.page, "d2");
  await again.close();
  await shots("healthy");
  await shots("login", "/login", { signedIn: false });
});

async function shots(name, path = PAGE, options = {}) {
  const shoot = async (colorScheme, width) => {
    const { page, close } = await visit(path, { colorScheme, width, ...options });
    const file = join(SHOTS, `${name}-${colorScheme}-${width}.png`);
    await page.screenshot({ path: file, fullPage: true });
    await close();
  };
  const looks = [["light", 360], ["light", 1280], ["dark", 360], ["dark", 1280]];
  await Promise.all(looks.map(([colorScheme, width]) => shoot(colorScheme, width)));
}

test("a controller that stops is told of, and the page comes back by itself", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  await controller.stop();
  const banner = page.locator("#banner");
  await banner.getByText("Not live.").waitFor({ timeout: 16_000 });
  await banner.getByText(/Last update \d+s ago\. Trying again/).waitFor();
  assert.ok(await row(page, "d1").isVisible(), "what was known stays");
  await page.screenshot({ path: join(SHOTS, "not-live-light-1280.png") });
  await controller.start();
  await banner.waitFor({ state: "hidden" });
  await page.locator("#clock.live").waitFor();
  await close({ expected: /ERR_|Failed to load|EventSource/ });
});

test("a hidden page closes its stream and opens it again when it is seen", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  let streams = 0;
  page.on("request", (request) => (streams += request.url().includes("/live?") ? 1 : 0));
  const hide = (hidden) =>
    page.evaluate((value) => {
      Object.defineProperty(document, "hidden", { value, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }, hidden);
  await hide(true);
  await sleep(10_500);
  assert.equal(streams, 0);
  await hide(false);
  await sleep(500);
  assert.equal(streams, 1, "one stream a page");
  await close();
});

test("a session that ended elsewhere is told of", async () => {
  const { page, close } = await visit(PAGE);
  await page.locator("#clock.live").waitFor();
  const other = await page.context().newPage();
  await other.goto(PAGE);
  await other.getByRole("button", { name: "Sign out" }).click();
  await other.waitForURL("**/login");
  await other.close();
  const banner = page.locator("#banner");
  await banner.getByText("Signed out.").waitFor({ timeout: 16_000 });
  const link = banner.getByRole("link");
  assert.equal(await link.getAttribute("href"), `/login?next=${PAGE}`);
  await close({ expected: /401|Failed to load/ });
});
