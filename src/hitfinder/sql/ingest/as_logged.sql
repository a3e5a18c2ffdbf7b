-- One row per SKU x period x channel with orders or refunds, under the channel that each was logged with.
-- Reads `judged_events`; attribution.sql stands in its place where orders go to the channels that led to them.
with kept as (
    select * from judged_events
    where rule is null and kind in ('orders', 'refunds')
),

order_credits as (
    select
        sku_id,
        period_start,
        channel,
        -- One visit that buys twice is one order; a purchase that names no visit is an order of its own.
        count(distinct order_key) filter (where kind = 'orders' and order_known)
            + count(*) filter (where kind = 'orders' and not order_known) as orders,
        coalesce(sum({units}) filter (where kind = 'orders'), 0) as units,
        coalesce(sum(amount) filter (where kind = 'orders'), 0) as revenue,
        coalesce(sum(amount) filter (where kind = 'refunds'), 0) as refunds
    from kept
    group by sku_id, period_start, channel
)

select * from order_credits
