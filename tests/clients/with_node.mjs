// OpenAI's client for Node.js.
import OpenAI from "openai";

const { GATEWAY, MODEL, MESSAGES } = process.env;
const client = new OpenAI({ baseURL: `${GATEWAY}/v1`, apiKey: "any", maxRetries: 0 });
const asked = { model: MODEL, temperature: 0, messages: JSON.parse(MESSAGES) };

const whole = await client.chat.completions.create(asked);
const pieces = [];
for await (const piece of await client.chat.completions.create({ ...asked, stream: true })) {
  pieces.push(piece.choices[0].delta.content ?? "");
}
const refused = await client.chat.completions.create({ ...asked, model: "no-such-model" }).catch((error) => error);
console.log(JSON.stringify({
  text: whole.choices[0].message.content, pieces, status: refused.status, error: refused.code,
}));
