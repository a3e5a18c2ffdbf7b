-- One row per SKU x period x channel. A kind that the format can't tell of is NULL; one that it can is at least 0.
-- Reads `judged_events`.
with kept as (
    select * from judged_events
    where rule is null and kind <> 'ignored'
),

-- A property's day may end after the day in UTC: nothing of it was known before its last event.
period_ends as (
    select
        period_start,
        greatest(period_start + {period}, max(happened_at)) as known_at
    from kept
    group by period_start
),

counted as (
    select
        sku_id,
        period_start,
        channel,
        count(*) filter (where kind = 'impressions') as impressions,
        count(*) filter (where kind = '{click_kind}') as clicks,
        count(*) filter (where kind = 'favorites') as favorites,
        count(*) filter (where kind = 'carts') as carts,
        -- One visit that buys twice is one order; a purchase that names no visit is an order of its own.
        count(distinct order_key) filter (where kind = 'orders' and order_known)
            + count(*) filter (where kind = 'orders' and not order_known) as orders,
        coalesce(sum({units}) filter (where kind = 'orders'), 0) as units,
        coalesce(sum(amount) filter (where kind = 'orders'), 0) as revenue,
        coalesce(sum(amount) filter (where kind = 'refunds'), 0) as refunds,
        -- Who came or bought. Where events name nobody, visitors were not measured.
        case
            when count(*) filter (where kind not in ('impressions', 'refunds')) = 0 then 0
            when count(*) filter (where kind not in ('impressions', 'refunds') and person_known) = 0 then null
            else count(distinct person) filter (where kind not in ('impressions', 'refunds') and person_known)
        end as visitors
    from kept
    group by sku_id, period_start, channel
),

measured as (
    select
        counted.sku_id,
        counted.period_start,
        counted.channel,
        period_ends.known_at,
        {measured}
    from counted
    join period_ends on period_ends.period_start = counted.period_start
)

select * from measured
