"""The page of ``retrieval_page``: its frame, its looks and its filters."""

from string import Template

__all__ = ["PAGE"]

_STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f5f6f8; --card: #ffffff; --text: #1a1d23; --faint: #667085; --line: #e1e4ea;
  --target: #0a8f3c; --accent: #2f5bd7;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14161a; --card: #1e2127; --text: #e8eaee; --faint: #99a1b0; --line: #333842;
    --target: #35c66d; --accent: #86a5ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--ground); color: var(--text);
  font: 15px/1.45 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
header, main { max-width: 1500px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 24px; }
h1 { font-size: 24px; margin: 0 0 4px; }
.faint { color: var(--faint); font-size: 13px; margin: 2px 0; }
table { border-collapse: collapse; margin: 14px 0 6px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 14px; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--faint); font-weight: 500; font-size: 13px; }
tbody th { font-weight: 500; }
form {
  position: sticky; top: 0; z-index: 1; background: var(--ground);
  border-bottom: 1px solid var(--line); margin-top: 12px;
}
form > div {
  max-width: 1500px; margin: 0 auto; padding: 10px 24px;
  display: flex; flex-wrap: wrap; gap: 8px 24px; align-items: center;
}
fieldset { border: 0; margin: 0; padding: 0; display: flex; align-items: center; gap: 4px; }
fieldset[hidden] { display: none; }
legend { float: left; padding: 0 8px 0 0; color: var(--faint); font-size: 13px; }
label { cursor: pointer; }
label span {
  display: block; padding: 4px 12px; border: 1px solid var(--line); border-radius: 999px;
  background: var(--card); font-size: 14px;
}
label input { position: absolute; opacity: 0; }
label input:checked + span { background: var(--accent); border-color: var(--accent); color: #fff; }
label input:focus-visible + span { outline: 2px solid var(--accent); outline-offset: 2px; }
@media (prefers-color-scheme: dark) { label input:checked + span { color: #14161a; } }
output { margin-left: auto; color: var(--faint); font-size: 13px; }
main { display: flex; flex-direction: column; gap: 14px; padding-top: 16px; padding-bottom: 40px; }
main.reversed { flex-direction: column-reverse; }
article {
  display: flex; gap: 18px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 14px;
}
article[hidden] { display: none; }
.query { flex: 0 0 280px; display: flex; gap: 14px; }
.query p { margin: 0 0 6px; font-size: 15px; overflow-wrap: anywhere; }
.rank { font-weight: 600; }
.rank.found { color: var(--target); }
.query p.faint { font-size: 13px; }
.results { display: flex; flex-wrap: wrap; gap: 10px; flex: 1; min-width: 0; }
figure { margin: 0; flex: 0 0 96px; }
figure img {
  display: block; width: 96px; height: 96px; border-radius: 6px; background: #fff;
  border: 1px solid var(--line);
}
figcaption {
  margin-top: 4px; font-size: 12px; color: var(--faint); font-variant-numeric: tabular-nums;
}
figure.target img { border-color: transparent; outline: 3px solid var(--target); }
figure.target figcaption { color: var(--target); font-weight: 600; }
figure.beyond img { outline-style: dashed; }
meter { width: 90px; height: 10px; vertical-align: middle; }
@media (max-width: 900px) { article { flex-direction: column; } .query { flex-basis: auto; } }
"""

_SCRIPT = """
const images = JSON.parse(document.getElementById("images").textContent);
const form = document.querySelector("form");
const list = document.querySelector("main");
function fill(card) {
  for (const image of card.querySelectorAll("img:not([src])")) {
    image.src = images[image.dataset.id];
  }
}
function apply() {
  const show = form.elements.show.value, task = form.elements.task.value;
  let count = 0;
  for (const card of list.children) {
    const shown = card.dataset.kinds.split(" ").includes(show);
    card.hidden = !shown || (task !== "all" && card.dataset.task !== task);
    if (card.hidden) continue;
    count += 1;
    fill(card);
  }
  list.classList.toggle("reversed", show === "worst");
  form.elements.count.value = count === 1 ? "1 query" : count + " queries";
}
function fromAddress() {
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) {
    for (const input of form.querySelectorAll("input")) {
      if (input.name === name && input.value === value) input.checked = true;
    }
  }
  apply();
}
form.addEventListener("change", () => {
  apply();
  const choice = new URLSearchParams(new FormData(form));
  history.replaceState(null, "", "#" + choice);
});
window.addEventListener("hashchange", fromAddress);
fromAddress();
"""

_FRAME = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
$scores
</header>
<form><div>
<fieldset><legend>show</legend>
$kinds
</fieldset>
<fieldset$hidden><legend>category</legend>
$tasks
</fieldset>
<output name="count"></output>
</div></form>
<main>
$articles
</main>
<noscript>The images and the filters need JavaScript.</noscript>
<script type="application/json" id="images">$images</script>
<script>$script</script>
</body>
</html>
"""

PAGE = Template(Template(_FRAME).safe_substitute(style=_STYLE, script=_SCRIPT.replace("$", "$$")))
