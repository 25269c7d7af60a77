# How low must the target be? The two waves in virtual time, 3 seeds each; seconds of one core.
waves=serve_app/capacity/examples/waves/waves.yaml
for target in 1 2 4 8 16 32 64; do
  python -m serve_app.capacity simulate $waves --quick --startup uniform:least=7s,most=13s \
    --set service.autoscaling.target_ongoing_requests=$target |
    awk -v t=$target '/these settings/ {print "target " t ": " $0}'
done
