# How low must the target be? The two waves in virtual time, 3 seeds each; half a minute of one core.
waves=docs/examples/waves/waves.yaml
echo "target | replica-hours | cost | requests in SLO | seeds that met it | TTFT p50 | p99 | peak"
for target in 1 2 4 8 16 32 64; do
  python -m serve_app.capacity simulate $waves --quick --startup uniform:min=7s,max=13s \
    --set service.autoscaling.target_ongoing_requests=$target 2>/dev/null |
    awk -F ' *│ *' -v t=$target -v OFS=' | ' '/these settings/ {print t, $3, $4, $5, $6, $7, $8, $9}'
done
