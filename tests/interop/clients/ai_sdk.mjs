// Vercel's AI SDK: its MCP client, and its tools as a model's calls run them.
import { createMCPClient, experimental_createMCPClient } from '@ai-sdk/mcp';
import { main, text } from './play.mjs';

await main(async (request) => {
  const create = createMCPClient ?? experimental_createMCPClient;
  const client = await create({ transport: { type: 'http', url: request.url, headers: request.headers } });
  return {
    list: async () => Object.keys(await client.tools()),
    call: async (name, given) => text(await (await client.tools())[name].execute(given, { messages: [], toolCallId: '1' })),
    close: () => client.close(),
  };
});
