// The suite cannot send headers of its own. This adds the API key to every request it makes, whichever client makes it.
import diagnostics from 'node:diagnostics_channel';

const key = process.env.CONFORMANCE_KEY;
if (key) {
  diagnostics.subscribe('undici:request:create', ({ request }) => request.addHeader('authorization', `Bearer ${key}`));
  diagnostics.subscribe('http.client.request.created', ({ request }) => request.setHeader('authorization', `Bearer ${key}`));
}
