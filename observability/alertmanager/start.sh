#!/bin/sh
# Alertmanager's start. Without an address to post to it refuses, instead of swallowing what it is told.
case $(cat /run/secrets/webhook-url 2>/dev/null) in
  http://?* | https://?*) exec /bin/alertmanager "$@" ;;
esac
echo "alertmanager: ALERT_WEBHOOK_URL_FILE must name a file that uid 65534 can read, with the address (http:// or https://) that alerts are posted to" >&2
exit 2
