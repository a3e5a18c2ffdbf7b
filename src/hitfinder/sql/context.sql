-- context: what else is known of each SKU at each moment: its age, price against its category, breadth, calendar.
-- Grain: as_of, sku_id.
-- Reads: totals, scope.
with
priced as (
    select
        totals.*,
        median(price) over (partition by as_of, batch_id, category) as category_price,
        count(*) over (partition by as_of, batch_id, style_id) - 1 as siblings,
        count(*) over (partition by as_of, batch_id) as batch_skus
    from totals
),

described as (
    select
        priced.as_of,
        priced.sku_id,
        priced.batch_id,
        priced.style_id,
        priced.category,
        priced.launched_at,
        priced.impressions,
        priced.visitors,
        priced.clicks,
        priced.favorites,
        priced.carts,
        priced.orders,
        priced.units,
        priced.revenue,
        priced.refunds,
        priced.spend,
        priced.age_days,
        priced.is_sold_out,
        priced.age_days * 86400.0 / scope.test_seconds as age_share,
        priced.active_periods,
        priced.active_periods / greatest(priced.days * 86400.0 / scope.period_seconds, 1) as active_share,
        case when priced.last_seen_days is not null then greatest(priced.days - priced.last_seen_days, 0) end
        as quiet_days,
        priced.channels,
        priced.creatives,
        priced.siblings,
        priced.batch_skus,
        case when priced.price > 0 then ln(priced.price) end as log_price,
        case when priced.price > 0 and priced.category_price > 0 then ln(priced.price / priced.category_price) end
        as price_lead,
        extract(month from priced.as_of) as month,
        -- 0 is Sunday. Engines number weekdays differently; 1970 began on a Thursday in all of them.
        (cast(floor(epoch(priced.launched_at) / 86400.0) as bigint) + 4) % 7 as launch_weekday
    from priced
    cross join scope
)

select * from described
