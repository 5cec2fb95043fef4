// The dashboard in a real browser: dashboard.mjs URL TOKEN PEER PICTURES. Prints what it has seen as JSON.
import puppeteer from "puppeteer-core";

const [url, token, peer, pictures] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"], headless: true });
const seen = { complaints: [], foreign: [] };
try {
  const page = await browser.newPage();
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && !message.text().includes("401") && seen.complaints.push(message.text()));
  page.on("pageerror", (error) => seen.complaints.push(String(error)));
  page.on("request", (request) => new URL(request.url()).origin === new URL(url).origin || request.url().startsWith("data:") || seen.foreign.push(request.url()));
  await page.setViewport({ width: 1280, height: 900 });
  await page.goto(url);
  await page.waitForSelector("#login:not([hidden])");
  await page.type("#token", "not-the-token-at-all");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("#login-problem").textContent !== "");
  seen.refusal = await page.$eval("#login-problem", (node) => node.textContent);
  await page.type("#token", token);
  await page.keyboard.press("Enter");
  await page.waitForSelector("#app:not([hidden])");
  await page.waitForFunction(() => document.querySelectorAll("#rate-chart path.line").length === 1 && document.querySelector("#rate-now").textContent.includes("now"));
  seen.routes = await page.$$eval("#routes tbody tr", (rows) => rows.map((row) => row.cells[0].textContent));
  seen.tiles = await page.$$eval(".tile", (tiles) => tiles.map((tile) => tile.textContent));
  seen.peers = await page.$$eval(".peer .mono", (nodes) => nodes.map((node) => node.textContent));
  seen.failures = await page.$$eval("#failure-list tbody tr", (rows) => rows.map((row) => row.textContent));
  seen.markup = await page.$$eval("#failure-list script, #failure-list img", (nodes) => nodes.length);
  seen.plugins = await page.$$eval("#plugins tbody tr", (rows) => rows.map((row) => row.cells[0].textContent));

  // By the keyboard alone: a peer is taken out, and comes back.
  const state = (wanted) => page.waitForFunction((name, text) => [...document.querySelectorAll(".peer")].some((node) => node.textContent.includes(name) && node.classList.contains(text)), {}, peer, wanted);
  await page.focus(`button[aria-label="down ${peer}"]`);
  await page.keyboard.press("Enter");
  await state("down");
  await page.focus(`button[aria-label="up ${peer}"]`);
  await page.keyboard.press("Enter");
  await state("up");
  seen.peer = "went down and came up";

  // The page is written anew every two seconds: the keyboard stays where it was.
  const focused = () => page.evaluate(() => document.activeElement.getAttribute("aria-label"));
  await page.evaluate((label) => document.querySelector(`button[aria-label="${label}"]`).classList.add("old"), `up ${peer}`);
  await page.focus(`button[aria-label="up ${peer}"]`);
  await page.waitForFunction(() => !document.querySelector("button.old"));
  seen.focus = await focused();

  await page.focus("#tail-toggle");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelectorAll("#tail-list tbody tr").length >= 3);
  seen.tail = await page.$$eval("#tail-list tbody tr", (rows) => rows[0].cells.length);

  // Another filter holds at once.
  await page.type("#tail-form input[name=status]", "4");
  await page.keyboard.press("Tab");
  await page.waitForFunction(() => document.querySelectorAll("#tail-list tbody tr").length >= 3);
  seen.filtered = [...new Set(await page.$$eval("#tail-list tbody tr", (rows) => rows.map((row) => row.cells[1].textContent[0])))];
  await page.click("#tail-toggle");
  seen.toggle = await page.$eval("#tail-toggle", (node) => node.textContent);

  await page.waitForFunction(() => document.querySelectorAll("#rate-chart path.line")[0].getAttribute("d").split("L").length > 3);
  const dark = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.evaluate(() => scrollTo(0, 0));
  const light = await dark();
  if (pictures) await page.screenshot({ path: `${pictures}/dashboard.png` });
  await page.click("#theme");
  seen.themes = [light, await dark()];
  await page.reload();
  await page.waitForSelector("#app:not([hidden])");
  seen.kept = await dark();
  if (pictures) await page.screenshot({ path: `${pictures}/dashboard-dark.png` });
  await page.setViewport({ width: 390, height: 800, isMobile: true });
  await page.waitForSelector("#upstream-map .peer");
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  seen.overflow = [await overflow()];
  if (pictures) await page.screenshot({ path: `${pictures}/dashboard-phone.png` });
  await page.setViewport({ width: 1280, height: 900 });

  // A generation is compared with the one before, and rolled back with one click.
  await page.waitForSelector("#generation-list li:nth-child(2)");
  await page.click("#generation-list li:first-child button");
  await page.waitForSelector("pre.diff .add");
  seen.diff = await page.$eval("pre.diff .add", (node) => node.textContent);
  seen.overflow.push(await overflow());
  const id = await page.$eval("#generation-list li:nth-child(2) code", (node) => node.textContent);
  await page.click("#generation-list li:nth-child(2) button:last-of-type");
  await page.waitForFunction((wanted) => document.querySelector("#about code").textContent === wanted, {}, id);
  seen.rolledBack = id;
  await page.click("#logout");
  await page.waitForSelector("#login:not([hidden])");
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
