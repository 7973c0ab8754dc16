# Sourced by scripts that measure a supervisor: from a bundle, in a folder $work that goes with the script.
#   supervise BUNDLE                 sets bundle, work
#   start_supervisor OPTION...       of switchyard-supervisor; sets address
#   stop_supervisor
supervise() {
  bundle=$(cd "$1" && pwd)
  [ -d "$bundle/lib" ] && export LD_LIBRARY_PATH="$bundle/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  work=$(mktemp -d)
  supervisor=""
  mkfifo "$work/serving"
  trap 'stop_supervisor; rm -rf "$work"' EXIT
}

start_supervisor() {
  local word
  "$bundle/switchyard-supervisor" --models-dir "$work/models.d" --listen 127.0.0.1:0 --state-dir "$work/state" \
    --cache-dir "$work/cache" "$@" >"$work/serving" 2>"$work/log" &
  supervisor=$!
  read -t 600 -r word address <"$work/serving" || {
    tail -20 "$work/log" >&2
    return 1
  }
}

stop_supervisor() {
  [ -n "$supervisor" ] || return 0
  kill "$supervisor" 2>/dev/null || true
  wait "$supervisor" || true
  supervisor=""
}
