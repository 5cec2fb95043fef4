// `node login.mjs ORIGIN NAME`: a person with a real browser who logs in, looks around, and logs out. Prints what was seen, as JSON.
import puppeteer from "puppeteer-core";

const [origin, name] = process.argv.slice(2);
const browser = await puppeteer.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });
const seen = {};

const text = (page) => page.$eval("body", (body) => body.innerText.trim());
const submit = (page, selector) => Promise.all([page.waitForNavigation({ waitUntil: "load" }), page.click(selector)]);
const status = (page, path) => page.evaluate(async (where) => (await fetch(where, { headers: { Accept: "application/json" } })).status, path);

try {
  const page = await browser.newPage();
  page.setDefaultTimeout(20000);
  await page.goto(`${origin}/`);
  seen.before = await status(page, "/account");
  await submit(page, "a");
  seen.form = page.url();
  await page.type("input[name=login]", name);
  await page.type("input[name=password]", "secret");
  await submit(page, "button[type=submit]");
  await submit(page, "button[type=submit]"); // consent
  seen.url = page.url();
  seen.page = await text(page);
  seen.fetched = await status(page, "/account/other");
  seen.cookies = (await browser.cookies()).filter((one) => one.domain === "localhost")
    .map(({ name: called, httpOnly, secure, sameSite, path }) => ({ name: called, httpOnly, secure, sameSite, path }));
  seen.script = await page.evaluate(() => document.cookie);
  await page.goto(`${origin}/account/orders?page=2`);
  seen.orders = await text(page);

  // Another window of somebody else knows nothing of it.
  const other = await (await browser.createBrowserContext()).newPage();
  await other.goto(`${origin}/`);
  seen.other = await status(other, "/account");

  await page.goto(`${origin}/logout`);
  seen.logout = page.url();
  await submit(page, "button[value=yes]");
  seen.home = await text(page);
  seen.after = await status(page, "/account");
  await page.goto(`${origin}/account`);
  seen.again = page.url();

  await page.goto(`${origin}/callback?code=stolen&state=guessed`);
  seen.stolen = await text(page);
} finally {
  await browser.close();
}
console.log(JSON.stringify(seen));
