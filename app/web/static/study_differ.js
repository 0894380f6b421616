// The study page: pairs on which annotators differ, by subset.
import { $, api, element, pair as entries, turns } from "./page.js";

const path = `/studies/${document.querySelector("[data-study]").dataset.study}/disagreements`;
const place = $("differ-pairs");
const more = $("differ-more");
const subset = $("differ-subset");

let last = 0; // the pair shown last

function shown(pair) {
  const votes = pair.votes.map((vote) => element("li", {},
    `${vote.rater}: ${vote.winner === "tie" ? "tie" : `${vote.winner} is better`}${vote.harmful ? ", flagged as harmful" : ""}`,
    vote.comment ? element("q", { dir: "auto" }, vote.comment) : null,
  ));
  return element("details", { class: "differ" },
    element("summary", {}, `${pair.sample_id} (${pair.subset}): ${pair.votes.map((vote) => vote.winner).join(", ")}`),
    element("ul", {}, ...votes),
    entries([["prompt", turns(pair.prompt)], ["a", pair.response_a], ["b", pair.response_b]]),
  );
}

async function load(fromStart) {
  if (fromStart) last = 0;
  const asked = new URLSearchParams({ limit: 10, after: last });
  if (subset.value) asked.set("subset", subset.value);
  let page;
  try {
    page = await api(`${path}?${asked}`);
  } catch (problem) {
    place.textContent = problem instanceof TypeError ? "The service does not answer. Try again in a moment." : problem.message;
    return;
  }
  const pairs = page.data.map(shown);
  if (fromStart) place.replaceChildren(...(pairs.length ? pairs : [element("p", {}, "All who judged a pair say the same.")]));
  else place.append(...pairs);
  last = page.data.at(-1)?.id ?? last;
  more.hidden = !page.has_more;
}

if (place) {
  subset.addEventListener("change", () => load(true));
  more.addEventListener("click", () => load(false));
  load(true);
}
