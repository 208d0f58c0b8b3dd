#!/usr/bin/env bash
# The same with curl only: the list of models, a chat, a completion. usage: examples/curl.sh [MODEL]
# Exit codes are those of the other examples: 3 nothing answers · 4 the model is not ready · 5 the answer is an error.
set -euo pipefail
base=${OPENAI_BASE_URL:-http://127.0.0.1:8000/v1}
model=${1:-${MODEL:-qwen3-0.6b}}

fail() { echo "curl.sh: $2" >&2; exit "$1"; }

ask() {  # PATH [JSON]: prints the answer, or ends with one line
  local answer
  answer=$(curl -sS -w '\n%{http_code}' -H "Authorization: Bearer ${OPENAI_API_KEY:-any}" \
    ${2:+-H "Content-Type: application/json" -d "$2"} "$base/$1" 2>&1) ||
    fail 3 "nothing answers at $base: ${answer%%$'\n'*}"
  case $answer in
    *$'\n'200) echo "${answer%$'\n'*}" ;;
    *model_not_found*|*model_loading*|*no_worker_available*) fail 4 "${answer%$'\n'*}" ;;
    *) fail 5 "${answer%$'\n'*}" ;;
  esac
}

ask models
ask chat/completions '{"model": "'"$model"'", "messages": [{"role": "user", "content": "请用一句话介绍长城。"}]}'
ask completions '{"model": "'"$model"'", "prompt": "Explain the significance of the number 42.\n", "max_tokens": 200, "temperature": 0}'
