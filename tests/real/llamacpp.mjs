// Greedy answers of llama.cpp to prompts in tokens: node llamacpp.mjs LIBRARY MODEL.gguf PROMPTS.json LONGEST
import fs from "node:fs";
import { pathToFileURL } from "node:url";

const [library, modelPath, prompts, longest] = process.argv.slice(2);
const { getLlama, LlamaLogLevel } = await import(pathToFileURL(library));
const llama = await getLlama({ build: "never", gpu: false, logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 512, threads: 1 });
const sequence = context.getSequence();
const answers = [];
for (const ids of JSON.parse(fs.readFileSync(prompts))) {
  await sequence.clearHistory();
  const said = [];
  for await (const token of sequence.evaluate(ids, { temperature: 0 })) {
    if (model.isEogToken(token)) break;
    said.push(token);
    if (said.length >= Number(longest)) break;
  }
  answers.push(model.detokenize(said).trim());
}
console.log(JSON.stringify(answers));
process.exit(0);
