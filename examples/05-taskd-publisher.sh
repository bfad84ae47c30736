#!/bin/sh
# 05: a publisher that has nothing but sh and curl, as a hook of taskd would be.
#
# It publishes that a client has synchronized, and what was decided about a certificate, with a service's token. The
# user they are about hears both by a long poll. Ends with 1 when anything is missing.
#
#     npm start                                 # in one terminal
#     set -a; . .posthorn/dev.env; set +a       # in another one
#     sh examples/05-taskd-publisher.sh
set -eu

url=${POSTHORN_URL:-http://localhost:8080}
: "${POSTHORN_TOKEN_SERVICE:?source the dev.env that npm start wrote}" "${POSTHORN_TOKEN_ALICE:?}"
database=${AUDIENCE:-demo}
run="run-$$-$(date +%s)"
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
failures=0

# post <path> <token> <json> [curl options]: the status; the answer's body is in $answer.
post() {
  path=$1 token=$2 json=$3
  shift 3
  # The token comes from a file: on the command line everybody could read it.
  printf 'header = "Authorization: Bearer %s"\n' "$token" |
    curl -sS -K - -o "$answer" -w '%{http_code}' --max-time 30 "$@" \
      -H 'Content-Type: application/json' --data "$json" "$url$path"
}

check() {
  if [ "$2" = "$3" ]; then
    echo "  ok   $1: $2"
  else
    echo "  FAIL $1: $2, expected $3"
    cat "$answer"
    failures=$((failures + 1))
  fi
}

# publish <topic> <message> <idempotency key>
publish() {
  post /v1/hook "$POSTHORN_TOKEN_SERVICE" "{\"topic\": \"$1\", \"action\": \"publish\", \"message\": $2}" \
    -H "Idempotency-Key: $3"
}

who='"username": "alice", "org": "inthe_am", "client": "task 2.6.2", "ip": "203.0.113.7", "port": 53589'
sync="{\"action\": \"sync\", $who, \"client_key\": \"$run\", \"record_count\": 120, \"branch_point\": \"5f1a3d20\",
  \"branch_record_count\": 4, \"delta_count\": 2, \"stored_count\": 2, \"merged_count\": 0, \"service_duration\": 0.182}"
certificate="{$who, \"fingerprint\": \"$run\", \"certificate_recognized\": true, \"certificate_accepted\": false}"

check 'a synchronization is published' "$(publish sync.alice "$sync" "$run sync")" 200
check 'once more, stored once' "$(publish sync.alice "$sync" "$run sync")" 200
check 'a decision about a certificate' "$(publish taskd.certificate.alice "$certificate" "$run certificate")" 200
check 'not on the topic of another user' "$(publish sync.bob "$sync" "$run wrong")" 422
check 'and it says where' "$(grep -o '"path":"[^"]*"' "$answer")" '"path":"/username"'

# What alice hears, message by message: each poll goes on from the last one.
last=null
heard=''
polls=0
while [ "$polls" -lt 50 ]; do
  polls=$((polls + 1))
  body="{\"last_message\": $last, \"channels\": [\"sync.alice\", \"taskd.certificate.alice\"]}"
  [ "$(post "/$database/bus" "$POSTHORN_TOKEN_ALICE" "$body")" = 200 ] || break
  id=$(sed -n 's/.*"message_id":"\([^"]*\)".*/\1/p' "$answer")
  [ -n "$id" ] || break
  last="\"$id\""
  # Of this run only, and of what is about alice's tasks.
  if grep -q "\"$run\"" "$answer"; then
    heard="$heard$(sed -n 's/.*"channel":"\([^"]*\)".*/\1/p' "$answer") "
    case $heard in *certificate*) break ;; esac
  fi
done
check 'alice hears both, once and in order' "$heard" 'sync.alice taskd.certificate.alice '

[ "$failures" -eq 0 ] || exit 1
