// The mix of all tiers that k6 drives: 80 % redirects of 50 fresh links, 10 % lists, 7 % new links, 3 % health; every
// user rests 0.1 s between two requests. A tier is this with its numbers of users.
import http from 'k6/http';
import { sleep } from 'k6';
import { Counter } from 'k6/metrics';

const BASE = __ENV.BASE_URL;
const LINKS = 50;
const THINK_SECONDS = 0.1;

// Wrong or missing answers, by whether the request may be sent twice.
const failedReads = new Counter('failed_reads');
const failedChanges = new Counter('failed_changes');
const redirects = new Counter('redirects');

const json = { headers: { 'Content-Type': 'application/json' } };
// A name for all targets of a kind: k6 keeps figures for each name.
const named = (name, status) => ({ tags: { name }, redirects: 0, responseCallback: http.expectedStatuses(status) });
const REDIRECT = named('redirect', 302);
const LIST = named('list', 200);
const CREATE = { ...named('create', 201), ...json };
const HEALTH = named('health', 200);

// Options of a tier: stages of [seconds, users]. QUICK=1 takes a sixth of the time.
export function tier(stages) {
  const share = __ENV.QUICK === '1' ? 6 : 1;
  return {
    scenarios: {
      users: {
        executor: 'ramping-vus',
        stages: stages.map(([seconds, target]) => ({ duration: `${Math.max(1, Math.round(seconds / share))}s`, target })),
        gracefulRampDown: '5s',
      },
    },
    discardResponseBodies: true,
    summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
    // What k6 alone can judge. The runner judges times, by what k6 itself is capable of.
    thresholds: { http_req_failed: ['rate==0'], failed_reads: ['count==0'], failed_changes: ['count==0'] },
  };
}

export function setup() {
  const codes = [];
  for (let n = 0; n < LINKS; n++) {
    const made = http.post(`${BASE}/urls`, body(`setup-${n}`), { ...CREATE, responseType: 'text' });
    if (made.status !== 201) {
      throw new Error(`cannot make links: ${made.status} ${made.body}`);
    }
    codes.push(made.json('short_code'));
  }
  return codes;
}

function body(what) {
  return JSON.stringify({ url: `https://example.com/load/${what}?from=k6` });
}

export function iterate(codes) {
  const dice = Math.random() * 100;
  if (dice < 80) {
    const answer = http.get(`${BASE}/${codes[Math.floor(Math.random() * codes.length)]}`, REDIRECT);
    answer.status === 302 ? redirects.add(1) : failedReads.add(1);
  } else if (dice < 90) {
    if (http.get(`${BASE}/urls?per_page=5`, LIST).status !== 200) failedReads.add(1);
  } else if (dice < 97) {
    if (http.post(`${BASE}/urls`, body(`${__VU}-${__ITER}`), CREATE).status !== 201) failedChanges.add(1);
  } else if (http.get(`${BASE}/health`, HEALTH).status !== 200) {
    failedReads.add(1);
  }
  sleep(THINK_SECONDS);
}
