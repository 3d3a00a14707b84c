// Plays steps with a client: a request on standard input, one JSON line on standard output; see play.py.
import { readFileSync } from 'node:fs';

const BOUND = 60_000;
const bounded = (work) => Promise.race([work, new Promise((_, fail) => setTimeout(() => fail(new Error('no answer')), BOUND))]);

export const text = (result) => {
  const words = result.content.map((block) => block.text ?? block.type).join(' ');
  return result.isError ? `error result: ${words}` : words;
};

export async function main(open) {
  const request = JSON.parse(readFileSync(0, 'utf8'));
  const outcome = { steps: [] };
  try {
    let session = await bounded(open(request));
    for (const step of request.steps) {
      try {
        let ok;
        if (step.do === 'list') ok = (await bounded(session.list())).sort();
        if (step.do === 'call') ok = await bounded(session.call(step.name, step.arguments));
        if (step.do === 'reconnect') {
          await bounded(session.close());
          session = await bounded(open(request));
          ok = 'connected';
        }
        outcome.steps.push({ ok });
      } catch (error) {
        outcome.steps.push({ error: `${error.name}: ${error.message}` });
      }
    }
    await bounded(session.close());
  } catch (error) {
    outcome.failed = `${error.name}: ${error.message}`;
  }
  console.log(JSON.stringify(outcome));
  process.exit(0);
}
